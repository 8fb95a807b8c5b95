// Cases: the page of a daemon that agrees to permessage-deflate, which Chromium always offers.
//
// Needs a daemon built with the cargo feature `deflate`. Not here: what the page does otherwise
// (client.mjs), and compression itself (tests/conformance, tests/oracle).

import assert from 'node:assert/strict'

import { Daemon, connect, isOpen, noComplaints, run, shows, test, until } from './harness.mjs'

// The extensions that each WebSocket of a page was granted.
async function granted(page) {
  const inspector = await page.context().newCDPSession(page)
  const extensions = new Map()
  const urls = new Map()
  inspector.on('Network.webSocketCreated', ({ requestId, url }) => urls.set(requestId, new URL(url).pathname))
  inspector.on('Network.webSocketHandshakeResponseReceived', ({ requestId, response }) => {
    extensions.set(urls.get(requestId), response.headers['Sec-WebSocket-Extensions'] ?? 'none')
  })
  await inspector.send('Network.enable')
  return extensions
}

const sizes = (page, kind) => page.evaluate((kind) => [...document.querySelectorAll(`#frames .${kind} .number`)]
  .map((cell) => cell.innerText), kind)

test('an echo of what compresses well, over a connection that is lost and comes back', async (visit) => {
  const daemon = await Daemon.start('--ws-per-message-deflate', '--app', 'echo')
  const page = await visit.open(daemon)
  const extensions = await granted(page)
  await connect(page)
  assert.match(extensions.get('/ws/chat/'), /^permessage-deflate/)
  await page.fill('#message', 'the same again, '.repeat(500))
  await page.selectOption('#times', '10')
  for (const round of [1, 2]) {
    await page.click('#send')
    const all = async () => (await sizes(page, 'in')).filter((size) => size === '8,000').length
    await until('all echoes are there', async () => (await all()) === 10 * round, all)
    extensions.clear()
    await page.click('#lose')
    await isOpen(page)
    assert.match(extensions.get('/ws/chat/'), /^permessage-deflate/)
  }
  noComplaints(page)
  await daemon.stop()
})

test('it counts on, and the figures come, uncompressed', async (visit) => {
  const daemon = await Daemon.start('--ws-per-message-deflate', '--workers', '4')
  const page = await visit.open(daemon)
  const extensions = await granted(page)
  await page.reload()
  await shows(page, 'live', 'Live, once a second.')
  assert.equal(extensions.get('/ws/stats'), 'none')
  await connect(page)
  await page.selectOption('#times', '1000')
  await page.click('#send')
  await shows(page, 'count', '1,000')
  await page.click('#lose')
  await shows(page, 'sentence', 'Open. The session was resumed at 1,000. The count goes on.')
  noComplaints(page)
  await daemon.stop()
})

await run()
