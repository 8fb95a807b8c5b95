// What both halves of the page use: elements by name, numbers as people read them, and the waits
// between attempts to connect. The three scripts are joined into one module, in this order: words,
// client, reactors.

const byId = (id) => document.getElementById(id)
const { wsPath, version } = document.documentElement.dataset
const origin = `${location.protocol === 'https:' ? 'wss:' : 'ws:'}//${location.host}`

// An element with its text or children. Never markup from text: the policy allows none.
function make(name, attributes = {}, ...children) {
  const isDrawn = ['svg', 'path', 'circle', 'g', 'text'].includes(name)
  const element = isDrawn
    ? document.createElementNS('http://www.w3.org/2000/svg', name)
    : document.createElement(name)
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value)
  element.append(...children)
  return element
}

// Sets a text only where it differs, so that nothing is announced or laid out for no reason.
function say(element, text) {
  if (element.textContent !== text) element.textContent = text
}

const grouped = new Intl.NumberFormat('en')

const whole = (number) => grouped.format(Math.round(number))

// Three digits that mean something.
function brief(number) {
  if (number >= 100 || number === 0) return whole(number)
  return number.toFixed(number >= 10 ? 1 : 2).replace(/\.?0+$/, '')
}

function scaled(number, units, step) {
  let unit = 0
  while (number >= step && unit < units.length - 1) {
    number /= step
    unit += 1
  }
  return `${brief(number)} ${units[unit]}`
}

const bytes = (number) => scaled(number, ['B', 'kB', 'MB', 'GB', 'TB'], 1000)
const micros = (number) => scaled(number, ['µs', 'ms', 's'], 1000)
const plural = (number, what) => `${whole(number)} ${what}${number === 1 ? '' : 's'}`

// Milliseconds before the next attempt: half a second, doubled each time up to half a minute, and
// spread by a quarter, so that those who lost a server together do not come back together.
function backOff(attempt) {
  return Math.min(30_000, 500 * 2 ** attempt) * (0.75 + Math.random() / 2)
}
