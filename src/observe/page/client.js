// The client half: one WebSocket of a session, which it keeps alive across lost connections.
//
// `hello=1` makes the first message of the daemon's applications tell the session's id and count, on any
// connect: a browser's script cannot read the headers that say the same. So after a loss it is known
// whether the message that had no answer was counted. An embedder's application need not know `hello`.

const HELLO_MOST = 1000 // ms until a connection is taken for one without a hello: that comes with the 101
const FRAMES_KEPT = 200
const ID = /^[A-Za-z0-9._~-]{0,128}$/

let socket = null
let state = 'idle' // connecting, open, waiting, taken, idle
let known = null // the count that was last heard of
let unanswered = [] // text and time of what was sent, oldest first
let attempt = 0
let due = 0 // when the next attempt is made, in the clock of performance.now()
let timer = 0

// The session survives a reload of its tab, and of its tab alone.
const kept = {
  get(key) {
    try {
      return sessionStorage.getItem(key) ?? ''
    } catch {
      return ''
    }
  },
  set(key, value) {
    try {
      sessionStorage.setItem(key, value)
    } catch {
      // Without storage a reload forgets the session, and nothing else is missing.
    }
  },
}

// What the one button does in each state.
const DOES = { idle: 'Connect', connecting: 'Disconnect', open: 'Disconnect', waiting: 'Stop trying', taken: 'Take it back' }

function enter(next, sentence) {
  state = next
  byId('state').dataset.state = next
  say(byId('sentence'), sentence)
  say(byId('connect'), DOES[next])
  const isUp = next !== 'idle' && next !== 'taken'
  byId('connect').classList.toggle('primary', !isUp)
  byId('session').readOnly = isUp
  for (const id of ['lose', 'quit', 'send']) byId(id).ariaDisabled = String(next !== 'open')
  byId('second').ariaDisabled = String(byId('session').value === '')
  byId('fresh').ariaDisabled = String(byId('session').value === '' && next === 'idle')
}

function connect() {
  const id = byId('session').value.trim()
  clearTimeout(timer)
  kept.set('wanted', 'yes')
  say(byId('countdown'), '')
  const query = id ? `?hello=1&session_id=${encodeURIComponent(id)}` : '?hello=1'
  socket = new WebSocket(origin + wsPath + query)
  socket.binaryType = 'arraybuffer'
  socket.onopen = () => {
    note('event', 'open', null, id ? 'asking for the session' : 'asking for a new session')
    const opened = socket
    setTimeout(() => socket === opened && state === 'connecting' && goOnUngreeted(), HELLO_MOST)
  }
  socket.onmessage = ({ data }) => hear(data)
  socket.onclose = ({ code, reason }) => ended(code, reason)
  enter('connecting', 'Connecting…')
}

// Lets go of the socket: what it still hears is lost.
function drop(code, reason) {
  if (!socket) return
  socket.onopen = socket.onmessage = socket.onclose = null
  socket.close(code, reason)
  socket = null
}

function hear(data) {
  const isText = typeof data === 'string'
  const size = isText ? new TextEncoder().encode(data).length : data.byteLength
  let message = null
  if (isText && data.startsWith('{')) {
    try {
      message = JSON.parse(data)
    } catch {
      // Somebody's text that begins like ours.
    }
  }
  note('in', 'received', size, isText ? data : hexadecimal(data))
  if (state === 'connecting' && message && 'session_id' in message) return greet(message)
  const oldest = unanswered[0]
  const isEcho = oldest !== undefined && oldest.text === data
  if (isEcho || (message && ('count' in message || 'bye' in message))) {
    unanswered.shift()
    if (oldest) say(byId('trip'), `answered in ${micros((performance.now() - oldest.at) * 1000)}`)
    if (isEcho) showCount(null, 'the server echoes, it does not count')
    else showCount(message.count ?? message.total)
  }
}

function hexadecimal(data) {
  const shown = [...new Uint8Array(data).subarray(0, 32)].map((byte) => byte.toString(16).padStart(2, '0'))
  return `${shown.join(' ')}${data.byteLength > 32 ? ' …' : ''}`
}

function showCount(count, label = 'messages counted in this session') {
  if (count !== null) known = count
  say(byId('count'), count === null ? '–' : whole(count))
  say(byId('count-label'), label)
}

// The first message of a connection: which session it is, and how far it has counted.
function greet({ session_id: id, count, resumed }) {
  const asked = byId('session').value.trim()
  byId('session').value = id
  kept.set('session', id)
  byId('second').href = `#session=${encodeURIComponent(id)}`
  attempt = 0
  let sentence = 'Open, in a new session.'
  if (asked && asked !== id) {
    sentence = 'Open. The server did not take that id up and issued another.'
  } else if (resumed) {
    sentence = `Open. The session was resumed at ${whole(count)}.`
    if (known !== null && unanswered.length > 0) {
      const counted = Math.min(unanswered.length, Math.max(0, count - known))
      const lost = plural(unanswered.length, 'message')
      sentence += ` Of ${lost} without an answer ${whole(counted)} ${counted === 1 ? 'was' : 'were'} counted.`
    } else if (known !== null && count === known) {
      sentence += ' The count goes on.'
    }
  } else if (known > 0 && asked) {
    sentence = 'Open. The session was no longer known: it starts anew.'
  }
  unanswered = []
  showCount(count)
  enter('open', sentence)
}

// Nothing is known of the session, so nothing of what was lost.
function goOnUngreeted() {
  attempt = 0
  known = null
  unanswered = []
  showCount(null)
  enter('open', 'Open. This application says nothing of its sessions.')
}

function ended(code, reason) {
  const wasOpen = state === 'open'
  socket = null
  note('event', 'closed', null, reason ? `${code} ${reason}` : `${code}`)
  if (code === 4001) {
    kept.set('wanted', '')
    return enter('taken', 'A newer connection has taken the session over. This one is over.')
  }
  if (code === 1000) {
    kept.set('wanted', '')
    return enter('idle', reason ? `Closed: ${reason}. The session keeps its count.` : 'Closed.')
  }
  comeBack(wasOpen ? (code === 1001 ? 'The server goes away.' : 'Connection lost.') : 'No connection.')
  if (!wasOpen) tellRefusal()
}

// A browser does not say why an upgrade failed. Whether there is a server at all can be asked.
async function tellRefusal() {
  const answer = await fetch('/readyz').then((response) => response.json(), () => null)
  if (state !== 'waiting' || socket) return
  if (answer?.ready) say(byId('sentence'), 'The server is there, and refuses this connection.')
  else if (answer) say(byId('sentence'), 'The server is going away.')
  else say(byId('sentence'), 'The server does not answer.')
}

function comeBack(sentence) {
  const wait = backOff(attempt)
  attempt += 1
  due = performance.now() + wait
  enter('waiting', sentence)
  countDown()
}

// The time that is left: seen, and not read out.
function countDown() {
  const left = due - performance.now()
  if (left <= 0) return connect()
  say(byId('countdown'), `Trying again in ${Math.ceil(left / 1000)} s.`)
  timer = setTimeout(countDown, Math.min(left, 250))
}

function send(text) {
  if (state !== 'open') return
  socket.send(text)
  unanswered.push({ text, at: performance.now() })
  note('out', 'sent', new TextEncoder().encode(text).length, text)
}

// --- the list of frames ---

const fresh = []
const clock = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' })

function note(kind, direction, size, text) {
  const now = new Date()
  const time = `${clock.format(now)}.${String(now.getMilliseconds()).padStart(3, '0')}`
  if (fresh.length === 0) requestAnimationFrame(list)
  fresh.push({ kind, direction, size, text, time })
  // A tab in the background draws nothing, and must not collect for ever.
  if (fresh.length > 2 * FRAMES_KEPT) fresh.splice(1, FRAMES_KEPT)
}

const ARROWS = { in: '↓', out: '↑', event: '·' }

function list() {
  const rows = fresh.splice(0).slice(-FRAMES_KEPT).reverse().map(({ kind, direction, size, text, time }) =>
    make('tr', { class: kind },
      make('td', {}, time),
      make('td', {}, make('span', { 'aria-hidden': 'true' }, ARROWS[kind]), make('span', { class: 'unseen' }, direction)),
      make('td', { class: 'number' }, size === null ? '' : whole(size)),
      make('td', {}, text.length > 300 ? `${text.slice(0, 300)}…` : text)))
  const body = byId('frames')
  body.prepend(...rows)
  while (body.rows.length > FRAMES_KEPT) body.deleteRow(-1)
}

// --- what a person does ---

byId('connect-form').onsubmit = (event) => {
  event.preventDefault()
  if (state === 'open' || state === 'connecting') {
    drop(1000, 'disconnected by hand')
    kept.set('wanted', '')
    note('event', 'closed', null, 'disconnected by hand')
    return enter('idle', 'Disconnected. The session waits for you.')
  }
  if (state === 'waiting') {
    clearTimeout(timer)
    attempt = 0
    say(byId('countdown'), '')
    kept.set('wanted', '')
    return enter('idle', 'Not connected. The session waits for you.')
  }
  const isId = ID.test(byId('session').value.trim())
  byId('session-hint').hidden = isId
  byId('session').ariaInvalid = String(!isId)
  if (!isId) return byId('session').focus()
  connect()
}

byId('send-form').onsubmit = (event) => {
  event.preventDefault()
  if (state !== 'open') return say(byId('sentence'), 'Not connected: connect first.')
  for (let left = Number(byId('times').value); left > 0; left -= 1) send(byId('message').value)
}

byId('quit').onclick = () => send('quit')

byId('lose').onclick = () => {
  if (state !== 'open') return
  drop(4000, 'lost on purpose')
  note('event', 'closed', null, 'lost on purpose: answers under way are not waited for')
  comeBack('Connection lost, on purpose.')
}

byId('second').onclick = (event) => {
  if (byId('second').ariaDisabled === 'true') event.preventDefault()
}

byId('fresh').onclick = () => {
  if (byId('fresh').ariaDisabled === 'true') return
  drop(1000, 'a new session')
  known = null
  unanswered = []
  byId('session').value = ''
  byId('second').removeAttribute('href')
  kept.set('session', '')
  connect()
}

// --- the beginning: another tab's session, or the one from before the reload, or nothing ---

const handed = new URLSearchParams(location.hash.slice(1)).get('session')
if (handed && ID.test(handed)) {
  // An id is a secret: it does not stay in the address bar.
  history.replaceState(null, '', location.pathname)
  kept.set('session', handed)
  kept.set('wanted', 'yes')
}
byId('session').value = kept.get('session')
enter('idle', byId('session').value ? 'Not connected. The session waits for you.' : 'Not connected.')
if (kept.get('wanted')) connect()
