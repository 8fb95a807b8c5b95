// The reactors' half: once a second a frame from /ws/stats, with every counter as it stands and each
// slab as runs of equal slots. Rates are made here, from two frames. While the page is hidden or
// paused the socket is closed, and the server looks at nothing.

const TILES = ['vacant', 'handshaking', 'open', 'throttled', 'closing', 'watching', 'held']
const MEANINGS = {
  1000: 'normal', 1001: 'going away', 1002: 'protocol error', 1003: 'unsupported data', 1005: 'without a code',
  1006: 'lost, without a Close', 1007: 'not UTF-8', 1008: 'policy: slow, or unfinished', 1009: 'message too big',
  1010: 'extension missing', 1011: 'internal error, lost pong', 1012: 'service restart', 1013: 'try again later',
  1014: 'bad gateway', 4001: 'session taken over', '3xxx': 'registered', '4xxx': "applications' own", other: 'any other',
}
const HISTORY = 60 // seconds of it that a card shows

let looks = null // the socket, while somebody looks
let losses = 0
let again = 0
let previous = null
let heardAt = 0
let frameBytes = 0
let cards = []
let totals = null

const colours = {}

function readColours() {
  const style = getComputedStyle(document.documentElement)
  for (const name of [...TILES, 'line', 'accent', 'soft', 'text']) colours[name] = style.getPropertyValue(`--${name}`).trim()
}

function look() {
  clearTimeout(again)
  looks = new WebSocket(`${origin}/ws/stats`)
  previous = null
  looks.onmessage = ({ data }) => {
    losses = 0
    heardAt = performance.now()
    frameBytes = data.length
    const frame = JSON.parse(data)
    // Drawn when the screen is: at most once a picture, and not at all in the background.
    requestAnimationFrame(() => show(frame))
  }
  looks.onclose = ({ code }) => {
    looks = null
    byId('reactors').classList.add('stale')
    const wait = backOff(losses)
    losses += 1
    say(byId('live'), code === 1001 ? 'The server goes away.' : 'No figures: trying again.')
    again = setTimeout(look, wait)
  }
}

function lookAway(sentence) {
  clearTimeout(again)
  if (looks) {
    looks.onmessage = looks.onclose = null
    looks.close()
    looks = null
  }
  byId('reactors').classList.add('stale')
  say(byId('live'), sentence)
}

const isPaused = () => byId('pause').ariaPressed === 'true'

function lookOrNot() {
  if (isPaused()) return lookAway('Paused: the server looks at nothing.')
  if (document.hidden) return lookAway('Hidden.')
  say(byId('live'), 'Connecting…')
  if (!looks) look()
}

byId('pause').onclick = () => {
  const pressed = !isPaused()
  byId('pause').ariaPressed = String(pressed)
  lookOrNot()
}
document.addEventListener('visibilitychange', lookOrNot)
addEventListener('pagehide', () => lookAway(''))
addEventListener('pageshow', ({ persisted }) => persisted && lookOrNot())

// --- numbers ---

const sum = (reactors, key) => reactors.reduce((total, reactor) => total + reactor[key], 0)

// What happened to a reactor since the frame before, per second where that makes sense.
function change(now, before, seconds) {
  const since = (key) => now[key] - before[key]
  const rate = (key) => since(key) / seconds
  const turns = since('turns')
  const awake = since('busy_us')
  const clocked = awake + since('asleep_us')
  return {
    messages: rate('messages'),
    turns: rate('turns'),
    bytesIn: rate('bytes_in'),
    bytesOut: rate('bytes_out'),
    events: turns > 0 ? since('events') / turns : 0,
    busy: clocked > 0 ? awake / clocked : 0,
    busyEach: turns > 0 ? awake / turns : 0,
    asleepEach: turns > 0 ? since('asleep_us') / turns : 0,
    handed: now.hand_overs_to.map((count, to) => (count - before.hand_overs_to[to]) / seconds),
  }
}

// Expands the runs into one number a slot.
function expand(runs) {
  const cells = new Uint8Array(runs.reduce((length, run) => length + (run >>> 3), 0))
  let at = 0
  for (const run of runs) {
    cells.fill(run & 7, at, at + (run >>> 3))
    at += run >>> 3
  }
  return cells
}

// --- a frame becomes a picture ---

function show(frame) {
  const { reactors } = frame
  const seconds = previous ? (frame.uptime_us - previous.uptime_us) / 1e6 : 0
  const isNext = seconds > 0 && previous.reactors.length === reactors.length
  if (cards.length !== reactors.length) {
    cards = reactors.map((_, number) => makeCard(number))
    byId('cards').replaceChildren(...cards.map(({ element }) => element))
    say(byId('about'), `${version} · ${plural(reactors.length, 'reactor')}`)
  }
  const counts = TILES.map(() => 0)
  const changes = reactors.map((reactor, number) => isNext && change(reactor, previous.reactors[number], seconds))
  reactors.forEach((reactor, number) => showCard(cards[number], reactor, changes[number], counts))
  showTotals(reactors, isNext ? changes : null)
  showLegend(counts)
  showHandOvers(reactors, changes)
  showCloses(reactors)
  showStore(frame, isNext && previous.store ? previous : null, seconds)
  byId('reactors').classList.remove('stale')
  say(byId('live'), 'Live, once a second.')
  say(byId('foot'), `This view costs the server one frame of ${bytes(frameBytes)} and one look at each reactor a second, and nothing while it is paused or hidden. Connections include those that watch.`)
  previous = frame
}

const TOTALS = ['Connections', 'Sessions', 'Messages a second', 'Turns a second', 'Events a turn', 'Bytes in a second', 'Bytes out a second']

function showTotals(reactors, changes) {
  totals ??= TOTALS.map((name) => {
    const value = make('span')
    const small = make('small')
    byId('totals').append(make('div', {}, make('dt', {}, name), make('dd', {}, value, small)))
    return { value, small }
  })
  const all = (key) => changes.reduce((total, each) => total + each[key], 0)
  const turns = changes ? all('turns') : 0
  const events = changes && turns > 0 ? changes.reduce((total, each) => total + each.events * each.turns, 0) / turns : 0
  const put = (index, value, small) => {
    say(totals[index].value, value)
    say(totals[index].small, small)
  }
  const rate = (key, form) => (changes ? form(all(key)) : '–')
  put(0, whole(sum(reactors, 'connections')), `${whole(sum(reactors, 'accepts'))} accepted`)
  put(1, whole(sum(reactors, 'sessions_live')), `live, ${whole(sum(reactors, 'sessions_detached'))} detached`)
  put(2, rate('messages', brief), `${whole(sum(reactors, 'messages'))} so far`)
  put(3, rate('turns', brief), `${whole(sum(reactors, 'turns'))} so far`)
  put(4, changes ? brief(events) : '–', 'on average')
  put(5, rate('bytesIn', bytes), `${bytes(sum(reactors, 'bytes_in'))} so far`)
  put(6, rate('bytesOut', bytes), `${bytes(sum(reactors, 'bytes_out'))} so far`)
}

const legend = TILES.map((name) => {
  const number = make('b', {}, '0')
  byId('legend').append(make('li', {}, make('span', { class: `swatch ${name}`, 'aria-hidden': 'true' }), `${name} `, number))
  return number
})

function showLegend(counts) {
  counts.forEach((count, tile) => say(legend[tile], whole(count)))
}

// --- one reactor ---

const FIGURES = ['Sessions', 'Messages', 'Turns', 'Events a turn', 'In', 'Out']
const ROUND = 2 * Math.PI * 13

function makeCard(number) {
  const arc = make('circle', { class: 'busy', cx: 18, cy: 18, r: 13, 'stroke-dasharray': `0 ${ROUND}` })
  const hand = make('g', { class: 'hand' }, make('circle', { cx: 18, cy: 5, r: 3.25 }))
  const dial = make('svg', { class: 'dial', viewBox: '0 0 36 36', 'aria-hidden': 'true' },
    make('circle', { cx: 18, cy: 18, r: 13 }), arc, hand)
  const share = make('p')
  const canvas = make('canvas', { class: 'slab', role: 'img', 'aria-label': `Slab of reactor ${number}` })
  const values = FIGURES.map(() => make('dd'))
  const history = make('canvas', { class: 'history', role: 'img', 'aria-label': 'Busy share of the last minute' })
  const turn = make('p', { class: 'turn' })
  const element = make('article', { class: 'reactor', 'aria-labelledby': `reactor-${number}` },
    make('header', {}, dial, make('h3', { id: `reactor-${number}` }, `Reactor ${number}`), share, turn),
    canvas,
    make('dl', { class: 'figures' }, ...FIGURES.map((name, index) => make('div', {}, make('dt', {}, name), values[index]))),
    make('p', { class: 'history-title' }, 'Busy, in the last minute'), history)
  const card = { number, element, arc, hand, angle: 0, share, canvas, values, history, turn, shares: [], cells: new Uint8Array(), before: new Uint8Array() }
  new ResizeObserver(() => requestAnimationFrame(() => drawCard(card))).observe(canvas)
  return card
}

function showCard(card, reactor, since, counts) {
  const { element, values } = card
  element.classList.toggle('late', reactor.runs === null)
  const unit = (text, small) => [text, make('small', {}, ` ${small}`)]
  values[0].replaceChildren(...unit(whole(reactor.sessions_live), `+ ${whole(reactor.sessions_detached)} detached`))
  if (since) {
    values[1].replaceChildren(...unit(brief(since.messages), '/s'))
    values[2].replaceChildren(...unit(brief(since.turns), '/s'))
    values[3].replaceChildren(brief(since.events))
    values[4].replaceChildren(...unit(bytes(since.bytesIn), '/s'))
    values[5].replaceChildren(...unit(bytes(since.bytesOut), '/s'))
    const percent = `${brief(since.busy * 100)} % busy`
    say(card.share, reactor.runs === null ? `has not answered · ${percent}` : percent)
    say(card.turn, since.turns > 0
      ? `A turn: asleep ${micros(since.asleepEach)}, ${brief(since.events)} ${brief(since.events) === '1' ? 'event' : 'events'}, busy ${micros(since.busyEach)}`
      : 'No turn in this second')
    card.arc.setAttribute('stroke-dasharray', `${since.busy * ROUND} ${ROUND}`)
    card.shares.push(since.busy)
    if (card.shares.length > HISTORY) card.shares.shift()
    revolve(card, since.turns)
  } else {
    values.slice(1).forEach((value) => say(value, '–'))
  }
  if (reactor.runs) {
    card.before = card.cells
    card.cells = expand(reactor.runs)
    card.canvas.classList.toggle('tall', card.cells.length > MANY)
    const own = TILES.map(() => 0)
    for (const cell of card.cells) own[cell] += 1
    own.forEach((count, tile) => { counts[tile] += count })
    const words = TILES.map((name, tile) => `${whole(own[tile])} ${name}`).filter((_, tile) => own[tile] > 0)
    const shown = card.cells.length < reactor.slots ? `, the first ${whole(card.cells.length)} shown` : ''
    card.canvas.ariaLabel = `Slab of reactor ${card.number}: ${plural(reactor.slots, 'slot')}${shown}: ${words.join(', ')}`
  }
  drawCard(card)
}

const still = matchMedia('(prefers-reduced-motion: reduce)')

// The hand goes round faster the more turns there are: each doubling adds as much again.
function revolve(card, turns) {
  if (still.matches) return
  const from = card.angle
  card.angle += Math.log2(1 + turns) * 20
  card.hand.animate([{ transform: `rotate(${from}deg)` }, { transform: `rotate(${card.angle}deg)` }], { duration: 1000, fill: 'forwards' })
  card.angle %= 360
}

// A canvas as sharp as the screen; null while it has no size.
function surface(canvas) {
  const scale = devicePixelRatio || 1
  const width = Math.round(canvas.clientWidth * scale)
  const height = Math.round(canvas.clientHeight * scale)
  if (width === 0 || height === 0) return null
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width
    canvas.height = height
  }
  const context = canvas.getContext('2d')
  context.clearRect(0, 0, width, height)
  return { context, width, height, scale }
}

function drawCard(card) {
  drawSlab(card)
  drawHistory(card)
}

// Slots beyond which a slab gets more room, so that they still can be told apart.
const MANY = 2500

// The largest squares of which all slots fit, in rows from the top left.
function drawSlab({ canvas, cells, before }) {
  const drawn = surface(canvas)
  if (!drawn) return
  const { context, width, height, scale } = drawn
  let pitch = Math.round(15 * scale) + 1
  let columns, step, rows
  do {
    pitch -= 1
    columns = Math.floor(width / pitch)
    // Large ones are stretched to the full width: a pixel more here and there is not seen.
    step = pitch >= 8 ? width / columns : pitch
    rows = Math.floor(height / step)
  } while (pitch > 1 && columns * rows < cells.length)
  const gap = pitch >= 3 ? Math.max(1, Math.round(pitch / 7)) : 0
  const edge = (index) => Math.round(index * step)
  // A run of equal slots in a row is one stroke; the gaps are wiped out at the end.
  const fill = (from, to, colour, alpha) => {
    context.fillStyle = colour
    context.globalAlpha = alpha
    while (from < to) {
      const column = from % columns
      const length = Math.min(to - from, columns - column)
      const row = Math.floor(from / columns)
      const [left, top] = [edge(column), edge(row)]
      context.fillRect(left, top, edge(column + length) - left, edge(row + 1) - top)
      from += length
    }
  }
  fill(cells.length, columns * rows, colours.vacant, 0.45)
  // What has changed since the last look stands out for a second.
  const isNew = (slot) => cells[slot] !== before[slot] && slot < before.length
  let from = 0
  for (let slot = 1; slot <= cells.length; slot += 1) {
    if (slot < cells.length && cells[slot] === cells[from] && isNew(slot) === isNew(from)) continue
    fill(from, slot, colours[TILES[cells[from]]], isNew(from) || cells[from] !== 2 ? 1 : 0.78)
    from = slot
  }
  context.globalAlpha = 1
  if (gap === 0) return
  for (let column = 1; column <= columns; column += 1) context.clearRect(edge(column) - gap, 0, gap, height)
  for (let row = 1; row <= rows; row += 1) context.clearRect(0, edge(row) - gap, width, gap)
}

// The busy share, a second a step, newest at the right; the line is 100 %.
function drawHistory({ history, shares }) {
  const drawn = surface(history)
  if (!drawn) return
  const { context, width, height, scale } = drawn
  const top = scale
  const step = width / (HISTORY - 1)
  const left = width - (shares.length - 1) * step
  const level = (share) => height - scale - share * (height - 2 * scale - top)
  context.strokeStyle = colours.line
  context.lineWidth = scale
  for (const share of [0, 1]) {
    context.beginPath()
    context.moveTo(0, level(share))
    context.lineTo(width, level(share))
    context.stroke()
  }
  if (shares.length < 2) return
  context.beginPath()
  shares.forEach((share, index) => context.lineTo(left + index * step, level(share)))
  context.strokeStyle = colours.accent
  context.lineWidth = 1.5 * scale
  context.stroke()
  context.lineTo(width, height)
  context.lineTo(left, height)
  context.globalAlpha = 0.14
  context.fillStyle = colours.accent
  context.fill()
  context.globalAlpha = 1
}

// --- between the reactors ---

const REACTORS_DRAWN = 12

function showHandOvers(reactors, changes) {
  const place = byId('hand-overs')
  if (reactors.length === 1) return place.replaceChildren(make('p', { class: 'soft' }, 'One reactor owns every session.'))
  const flows = reactors.flatMap((reactor, from) => reactor.hand_overs_to.map((count, to) => ({
    from, to, count, rate: changes[from] ? changes[from].handed[to] : 0,
  }))).filter(({ count }) => count > 0)
  const words = flows.map(({ from, to, count }) => `${whole(count)} from ${from} to ${to}`)
  const label = words.length > 0 ? `Connections handed over: ${words.join(', ')}` : 'No connection was handed over yet.'
  if (reactors.length > REACTORS_DRAWN) {
    flows.sort((a, b) => b.rate - a.rate || b.count - a.count)
    const line = ({ from, to, count, rate }) => make('li', {}, `${from} → ${to}: ${whole(count)}, ${brief(rate)} a second`)
    return place.replaceChildren(make('ol', {}, ...flows.slice(0, REACTORS_DRAWN).map(line)))
  }
  const gap = Math.max(64, Math.min(180, 540 / reactors.length))
  const x = (number) => 40 + number * gap
  const reach = 26 + (reactors.length - 1) * Math.min(22, gap / 3)
  const middle = reach + 30
  const [width, height] = [80 + (reactors.length - 1) * gap, 2 * middle]
  const svg = make('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', 'aria-label': label })
  for (const flow of flows) svg.append(...arrow(flow, x, middle, Math.min(22, gap / 3)))
  reactors.forEach((_, number) => svg.append(
    make('circle', { class: 'node', cx: x(number), cy: middle, r: 15 }),
    make('text', { x: x(number), y: middle + 4 }, String(number))))
  if (flows.length === 0) svg.append(make('text', { class: 'soft', x: width / 2, y: middle - reach }, 'none yet'))
  place.replaceChildren(svg)
}

// To the right above the line, to the left below it; the farther, the higher.
function arrow({ from, to, count, rate }, x, middle, rise) {
  const side = from < to ? -1 : 1
  const [begin, end] = [x(from) - side * 8, x(to) + side * 8]
  const base = middle + side * 15
  const peak = middle + side * 2 * (26 + Math.abs(to - from) * rise)
  const centre = (begin + end) / 2
  const width = 1.25 + Math.log10(1 + rate) * 1.5
  const moving = rate > 0 ? ' moving' : ''
  // A quadratic arc ends along the line from its control point.
  const [dx, dy] = [end - centre, base - peak]
  const length = Math.hypot(dx, dy)
  const [ux, uy] = [dx / length, dy / length]
  const size = 6 + width
  const [bx, by] = [end - ux * size, base - uy * size]
  const head = `M${end} ${base}L${bx - uy * size * 0.45} ${by + ux * size * 0.45}L${bx + uy * size * 0.45} ${by - ux * size * 0.45}Z`
  const top = middle + side * (15 + (Math.abs(peak - base)) / 2)
  return [
    make('path', { class: `arc${moving}`, d: `M${begin} ${base}Q${centre} ${peak} ${bx} ${by}`, 'stroke-width': width }),
    make('path', { class: `head${moving}`, d: head }),
    make('text', { x: centre, y: top + (side < 0 ? -6 : 15) }, whole(count) + (rate > 0 ? `, ${brief(rate)}/s` : '')),
  ]
}

let closesShown = ''

function showCloses(reactors) {
  const codes = new Map()
  for (const [code, side, count] of reactors.flatMap(({ closed }) => closed)) {
    const entry = codes.get(code) ?? { client: 0, server: 0 }
    entry[side] += count
    codes.set(code, entry)
  }
  const text = JSON.stringify([...codes])
  if (codes.size === 0 || text === closesShown) return
  closesShown = text
  const rows = [...codes].sort(([a], [b]) => (a < b ? -1 : 1)).map(([code, { client, server }]) => make('tr', {},
    make('td', {}, code), make('td', { class: 'soft' }, MEANINGS[code] ?? ''),
    make('td', { class: 'number' }, client ? whole(client) : ''), make('td', { class: 'number' }, server ? whole(server) : '')))
  byId('closes').replaceChildren(...rows)
}

// --- the store ---

const LOG = ['Commits a second', 'Sessions a commit', 'Commits a sync', 'A sync', 'Connections that wait', 'Written a second', 'Segments']
const SHARED = ['Commits a second', 'Sessions a commit', 'Commits a round trip', 'A round trip', 'Connections that wait', 'Claims a second', 'Taken over by others', 'Refused', 'Without an answer', 'It is']
let storeValues = null

// What the store did since the frame before; without one there is no panel, and no slot that is held.
function showStore({ store, reactors }, before, seconds) {
  byId('store').hidden = store === null
  legend[TILES.indexOf('held')].parentElement.hidden = store === null
  if (store === null) return
  const { shared } = store
  storeValues ??= (shared ? SHARED : LOG).map((name) => {
    const value = make('dd')
    byId('store-figures').append(make('div', {}, make('dt', {}, name), value))
    return value
  })
  const since = (key) => store[key] - before.store[key]
  const each = (key, of, form) => (before && since(of) > 0 ? form(since(key) / since(of)) : '–')
  const texts = [
    before ? brief(since('commits') / seconds) : '–',
    each('sessions', 'commits', brief),
    each('commits', 'syncs', brief),
    each('sync_us', 'syncs', micros),
    whole(sum(reactors, 'waits_for_store')),
    ...(shared ? [
      before ? brief((shared.claims - before.store.shared.claims) / seconds) : '–',
      whole(shared.takeovers),
      whole(shared.refused),
      whole(shared.unavailable),
      shared.available ? 'there' : 'away',
    ] : [
      before ? bytes(since('bytes') / seconds) : '–',
      whole(store.segments),
    ]),
  ]
  texts.forEach((text, index) => say(storeValues[index], text))
}

// --- the beginning ---

readColours()
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
  readColours()
  cards.forEach(drawCard)
})
// A reactor that is held up shows in what does not come.
setInterval(() => {
  if (looks?.readyState !== WebSocket.OPEN || !previous || performance.now() - heardAt < 2500) return
  byId('reactors').classList.add('stale')
  say(byId('live'), 'Nothing heard for seconds: the reactor that answers this page is held up.')
}, 1000)
lookOrNot()
