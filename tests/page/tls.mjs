// Cases: the page over TLS, and so Chromium's own WebSocket over TLS (wss).
//
// Needs a daemon built with the cargo feature `tls`. The certificate is one of tests/tls, of which Chromium is told to take
// it: it has no list of authorities to which a test could add its own. Not here: what the page does otherwise (client.mjs),
// who else speaks TLS (tests/foreign/tls.*).

import assert from 'node:assert/strict'
import { fileURLToPath } from 'node:url'

import { Daemon, connect, isOpen, noComplaints, run, shows, test } from './harness.mjs'

const file = (name) => fileURLToPath(new URL(`../tls/certificates/${name}`, import.meta.url))
const PAIR = ['--ssl-certfile', file('ecdsa.pem'), '--ssl-keyfile', file('ecdsa.key')]

async function open(visit, ...options) {
  const daemon = await Daemon.start('--workers', '4', ...PAIR, ...options)
  daemon.scheme = 'https'
  return [daemon, await visit.open(daemon, { ignoreHTTPSErrors: true })]
}

test('it counts, loses its connection, and counts on, and the figures come', async (visit) => {
  const [daemon, page] = await open(visit)
  const sockets = []
  page.on('websocket', (socket) => sockets.push(new URL(socket.url()).protocol))
  await page.reload()
  await shows(page, 'live', 'Live, once a second.')
  await connect(page)
  await page.selectOption('#times', '1000')
  await page.click('#send')
  await shows(page, 'count', '1,000')
  await page.click('#lose')
  await shows(page, 'sentence', 'Open. The session was resumed at 1,000. The count goes on.')
  assert.ok(sockets.length >= 3 && sockets.every((scheme) => scheme === 'wss:'), `${sockets}`)
  noComplaints(page)
  await daemon.stop()
})

test('messages of many records come back', async (visit) => {
  const [daemon, page] = await open(visit, '--app', 'echo')
  await connect(page)
  for (const size of [1, 16_384, 1_000_000]) {
    await page.fill('#message', 'x'.repeat(size))
    await page.click('#send')
    await page.waitForFunction((size) => [...document.querySelectorAll('#frames .in .number')]
      .some((cell) => cell.innerText === size), size.toLocaleString('en'))
  }
  await isOpen(page)
  noComplaints(page)
  await daemon.stop()
})

await run()
