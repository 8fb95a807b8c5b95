// Cases: TLS with Node's tls and `ws`. Needs a daemon built with the feature `tls`. The certificates are those of
// tests/tls.
//
// Not here: the options (tls.py).

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import https from 'node:https'
import tls from 'node:tls'
import { Daemon, run, someAtATime, test } from './harness.mjs'

const FILES = new URL('../tls/certificates/', import.meta.url)
const path = (name) => new URL(name, FILES).pathname
const ca = readFileSync(new URL('ca.pem', FILES))
const PAIR = ['--ssl-certfile', path('ecdsa.pem'), '--ssl-keyfile', path('ecdsa.key')]

// An answer to GET, by way of this agent or a connection of its own.
function get(port, path, agent = false) {
  return new Promise((resolve, reject) => {
    const request = https.get({ host: 'localhost', port, path, ca, agent }, (response) => {
      let body = ''
      response.on('data', (piece) => (body += piece))
      response.on('end', () => {
        resolve({ status: response.statusCode, body, reused: request.reusedSocket })
      })
    })
    request.on('error', reject)
  })
}

test('messages of any size come back, in both versions', async () => {
  const daemon = await Daemon.start('--app', 'echo', ...PAIR)
  for (const version of ['TLSv1.2', 'TLSv1.3']) {
    const options = { scheme: 'wss', ca, minVersion: version, maxVersion: version }
    const client = await daemon.connect('', options)
    for (const size of [0, 1, 125, 126, 16383, 16384, 16385, 1 << 20, 5 << 20]) {
      const bytes = randomBytes(size)
      client.send(bytes)
      assert.ok(bytes.equals(await client.receive()), `${size} bytes changed`)
    }
    await client.close()
  }
  await daemon.stop()
})

test('requests share a connection, and a page is had', async () => {
  const daemon = await Daemon.start(...PAIR)
  const agent = new https.Agent({ keepAlive: true, maxSockets: 1 })
  const first = await get(daemon.port, '/healthz', agent)
  const second = await get(daemon.port, '/', agent)
  assert.equal(first.status, 200)
  assert.equal(second.status, 200)
  assert.ok(second.reused && second.body.includes('<html'))
  agent.destroy()
  await daemon.stop()
})

test('a session resumes on every reactor', async () => {
  const daemon = await Daemon.start('--workers', '4', ...PAIR)
  const once = (session) =>
    new Promise((resolve, reject) => {
      const options = { host: 'localhost', port: daemon.port, ca, session, ALPNProtocols: ['http/1.1'] }
      const socket = tls.connect(options)
      let ticket
      socket.on('session', (next) => (ticket = next))
      socket.on('secureConnect', () => {
        assert.equal(socket.alpnProtocol, 'http/1.1')
        socket.write('GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
      })
      socket.on('data', () => {})
      socket.on('end', () => resolve({ ticket, reused: socket.isSessionReused() }))
      socket.on('error', reject)
    })
  let { ticket, reused } = await once(undefined)
  assert.ok(!reused && ticket)
  for (let n = 0; n < 12; n += 1) {
    ;({ ticket, reused } = await once(ticket))
    assert.ok(reused, `${n}`)
  }
  await daemon.stop()
})

test('five hundred clients come and go', async () => {
  const daemon = await Daemon.start('--app', 'echo', '--workers', '2', ...PAIR)
  await someAtATime(500, async (n) => {
    const client = await daemon.connect('', { scheme: 'wss', ca })
    client.send(`${n}`)
    assert.equal(await client.receive(), `${n}`)
    await client.close()
  })
  await daemon.stop()
})

await run()
