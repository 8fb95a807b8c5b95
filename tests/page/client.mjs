// Cases: the client half of the page. Connecting, counting, losing the connection and coming back,
// quitting, taking over from a second tab.
//
// The text that is asserted is what a person reads; the protocol behind it is the subject of
// tests/foreign. Not here: the reactors' half (reactors.mjs), keyboard and screen reader (access.mjs).

import assert from 'node:assert/strict'

import { Daemon, connect, isOpen, noComplaints, pause, run, screenshot, shows, test, text, until } from './harness.mjs'

// The frames listed, oldest first: class of the row and text of its cells.
const frames = (page) => page.evaluate(() => [...document.querySelectorAll('#frames tr')].reverse().map((row) => ({
  kind: row.className,
  cells: [...row.cells].map((cell) => cell.innerText.replace(/\s+/g, ' ').trim()),
})))

const session = (page) => page.inputValue('#session')

test('connects, counts, and lists each frame with time, direction and size', async (visit) => {
  const daemon = await Daemon.start('--workers', '4')
  const page = await visit.open(daemon)
  await shows(page, 'sentence', 'Not connected.')
  await connect(page)
  await shows(page, 'sentence', 'Open, in a new session.')
  assert.match(await session(page), /^[A-Za-z0-9_-]{22}$/)
  await shows(page, 'count', 0)
  for (const [count, message] of [[1, 'hello'], [2, 'Grüße'], [3, '']]) {
    await page.fill('#message', message)
    await page.click('#send')
    await shows(page, 'count', count)
  }
  await until('all frames are listed', async () => (await frames(page)).length === 8)
  const listed = await frames(page)
  for (const { cells } of listed) assert.match(cells[0], /^\d\d:\d\d:\d\d\.\d{3}$/)
  assert.deepEqual(listed.map(({ kind, cells }) => [kind, ...cells.slice(1)]), [
    ['event', '· open', '', 'asking for a new session'],
    ['in', '↓ received', '70', `{"session_id": "${await session(page)}", "count": 0, "resumed": false}`],
    ['out', '↑ sent', '5', 'hello'],
    ['in', '↓ received', '12', '{"count": 1}'],
    ['out', '↑ sent', '7', 'Grüße'],
    ['in', '↓ received', '12', '{"count": 2}'],
    ['out', '↑ sent', '0', ''],
    ['in', '↓ received', '12', '{"count": 3}'],
  ])
  await shows(page, 'trip', /^answered in [\d.]+ (µs|ms|s)$/)
  await page.selectOption('#times', '1000')
  await page.click('#send')
  await shows(page, 'count', '1,003')
  await until('the last one is listed', async () => (await frames(page)).at(-1).cells[3] === '{"count": 1003}')
  const kept = await frames(page)
  assert.equal(kept.length, 200, 'the list is bounded')
  assert.equal(kept.at(-1).cells[3], '{"count": 1003}')
  await screenshot(page, 'client')
  noComplaints(page)
  await daemon.stop()
})

test('loses its connection and comes back by itself, where the count goes on', async (visit) => {
  const daemon = await Daemon.start('--workers', '4')
  const page = await visit.open(daemon)
  await connect(page)
  await page.click('#send')
  await shows(page, 'count', 1)
  const id = await session(page)
  await page.click('#lose')
  await shows(page, 'sentence', 'Connection lost, on purpose.')
  await shows(page, 'countdown', /^Trying again in \d+ s\.$/)
  await screenshot(page, 'lost')
  await isOpen(page)
  await shows(page, 'sentence', 'Open. The session was resumed at 1. The count goes on.')
  assert.equal(await session(page), id)
  await page.click('#send')
  await shows(page, 'count', 2)
  noComplaints(page)
  await daemon.stop()
})

test('connects to a WebSocket that shares its path', async (visit) => {
  for (const path of ['/', '/*']) {
    const daemon = await Daemon.start('--ws-path', path)
    const page = await visit.open(daemon)
    await connect(page)
    await page.click('#send')
    await shows(page, 'count', 1)
    noComplaints(page)
    await daemon.stop()
  }
})

test('stops trying when told to', async (visit) => {
  const daemon = await Daemon.start()
  const page = await visit.open(daemon)
  await connect(page)
  await page.click('#send')
  await shows(page, 'count', 1)
  // In one go, before it is back by itself.
  await page.evaluate(() => ['lose', 'connect'].forEach((id) => document.getElementById(id).click()))
  await shows(page, 'sentence', 'Not connected. The session waits for you.')
  await shows(page, 'countdown', '')
  await pause(1500)
  assert.equal(await page.getAttribute('#state', 'data-state'), 'idle')
  await connect(page)
  await shows(page, 'sentence', 'Open. The session was resumed at 1. The count goes on.')
  noComplaints(page)
  await daemon.stop()
})

test('knows whether the messages without an answer were counted', async (visit) => {
  const daemon = await Daemon.start()
  const page = await visit.open(daemon)
  await connect(page)
  await page.selectOption('#times', '10')
  // In one go, so that no answer can come in between.
  await page.evaluate(() => ['send', 'lose'].forEach((id) => document.getElementById(id).click()))
  await isOpen(page)
  await shows(page, 'sentence', 'Open. The session was resumed at 10. Of 10 messages without an answer 10 were counted.')
  noComplaints(page)
  await daemon.stop()
})

test('survives a reload, and a restart of the server', async (visit) => {
  const daemon = await Daemon.start()
  const refused = /WebSocket connection to .* failed|Failed to load resource: net::ERR_CONNECTION_REFUSED/
  const page = await visit.open(daemon, { expected: refused })
  await connect(page)
  await page.click('#send')
  await shows(page, 'count', 1)
  const id = await session(page)
  await page.reload()
  await isOpen(page)
  await shows(page, 'sentence', 'Open. The session was resumed at 1.')
  // An end in good order is told, and then there is nobody.
  await daemon.stop()
  await shows(page, 'sentence', 'The server does not answer.')
  await shows(page, 'live', 'No figures: trying again.')
  const next = await Daemon.start('--port', String(daemon.port))
  await isOpen(page)
  await shows(page, 'sentence', 'Open. The session was no longer known: it starts anew.')
  assert.equal(await session(page), id)
  await shows(page, 'count', 0)
  await shows(page, 'live', 'Live, once a second.')
  noComplaints(page)
  await next.stop()
})

test('quits, disconnects, and begins another session', async (visit) => {
  const daemon = await Daemon.start()
  const page = await visit.open(daemon)
  await connect(page)
  await page.click('#send')
  await shows(page, 'count', 1)
  await page.click('#quit')
  await shows(page, 'sentence', 'Closed: quit command received. The session keeps its count.')
  await until('the end is listed', async () => (await frames(page)).at(-1).cells[1] === '· closed')
  assert.deepEqual((await frames(page)).slice(-3).map(({ cells }) => cells.slice(1)), [
    ['↑ sent', '4', 'quit'],
    ['↓ received', '25', '{"bye": true, "total": 1}'],
    ['· closed', '', '1000 quit command received'],
  ])
  await connect(page)
  await shows(page, 'count', 1)
  const first = await session(page)
  await page.click('#connect')
  await shows(page, 'sentence', 'Disconnected. The session waits for you.')
  await page.click('#fresh')
  await isOpen(page)
  await shows(page, 'count', 0)
  assert.notEqual(await session(page), first)
  noComplaints(page)
  await daemon.stop()
})

test('takes over from a second tab, and gives way without a fight', async (visit) => {
  const daemon = await Daemon.start('--workers', '4')
  const page = await visit.open(daemon)
  await connect(page)
  await page.click('#send')
  await shows(page, 'count', 1)
  const [second] = await Promise.all([page.context().waitForEvent('page'), page.click('#second')])
  await isOpen(second)
  await shows(second, 'sentence', 'Open. The session was resumed at 1.')
  assert.equal(new URL(second.url()).hash, '', 'the id does not stay in the address')
  await shows(page, 'sentence', 'A newer connection has taken the session over. This one is over.')
  const isLast = async () => (await frames(page)).at(-1).cells.slice(1).join() === '· closed,,4001 session taken over'
  await until('the Close is listed', isLast)
  await second.click('#send')
  await shows(second, 'count', 2)
  await screenshot(page, 'taken-over')
  assert.equal(await text(page, 'connect'), 'Take it back')
  await connect(page)
  await shows(page, 'count', 2)
  await shows(second, 'sentence', 'A newer connection has taken the session over. This one is over.')
  noComplaints(page)
  await daemon.stop()
})

test('an id of ones own, a wrong one, and one that the server does not take up', async (visit) => {
  const daemon = await Daemon.start('--session-ids', 'issued')
  const page = await visit.open(daemon)
  await page.fill('#session', 'a b')
  await page.click('#connect')
  assert.ok(await page.isVisible('#session-hint'))
  assert.equal(await page.getAttribute('#session', 'aria-invalid'), 'true')
  await page.fill('#session', 'alice')
  await connect(page)
  await shows(page, 'sentence', 'Open. The server did not take that id up and issued another.')
  assert.notEqual(await session(page), 'alice')
  noComplaints(page)
  await daemon.stop()
})

test('a refusal is told from a silence', async (visit) => {
  const daemon = await Daemon.start('--limit-concurrency', '1')
  const page = await visit.open(daemon, { expected: /WebSocket connection to .* failed/ })
  const other = await daemon.connect()
  await page.click('#connect')
  await shows(page, 'sentence', 'The server is there, and refuses this connection.')
  await other.close()
  await isOpen(page)
  noComplaints(page)
  await daemon.stop()
})

test('with an application that says no hello it is open all the same', async (visit) => {
  const daemon = await Daemon.start()
  const page = await visit.open(daemon)
  await page.routeWebSocket(/hello=1/, (socket) => socket.onMessage((message) => socket.send(`heard ${message}`)))
  await page.reload()
  await connect(page)
  await shows(page, 'sentence', 'Open. This application says nothing of its sessions.')
  await page.fill('#message', 'hello')
  await page.click('#send')
  await until('its answer is listed', async () => (await frames(page)).at(-1).cells[3] === 'heard hello')
  noComplaints(page)
  await daemon.stop()
})

test('with an echo it shows the echo, and no count', async (visit) => {
  const daemon = await Daemon.start('--app', 'echo', '--ws-path', '/echo/here')
  const page = await visit.open(daemon)
  await connect(page)
  for (const message of ['hello', '{"count": 7}']) {
    await page.fill('#message', message)
    await page.click('#send')
    await until('the echo is listed', async () => (await frames(page)).at(-1).cells.slice(1).join() === `↓ received,${message.length},${message}`)
    await shows(page, 'count', '–')
    await shows(page, 'count-label', 'the server echoes, it does not count')
  }
  await shows(page, 'trip', /^answered in /)
  await page.click('#lose')
  await isOpen(page)
  noComplaints(page)
  await daemon.stop()
})

await run()
