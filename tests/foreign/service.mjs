// Cases with Node's `ws` and its HTTP client: echo, HTTP beside it, the limit, the drain.
//
// Not here: sessions and counting (sessions.mjs).

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import http from 'node:http'
import { Client, Daemon, PATH, pause, refusal, run, test } from './harness.mjs'

const MIB = 1 << 20

// One request by Node's own HTTP client; `agent` decides whether connections are kept.
function ask(url, options = {}) {
  return new Promise((found, failed) => {
    const request = http.request(url, options, (response) => {
      const pieces = []
      response.on('data', (piece) => pieces.push(piece))
      response.on('end', () =>
        found({
          status: response.statusCode,
          headers: response.headers,
          body: Buffer.concat(pieces).toString(),
          reused: request.reusedSocket,
        }),
      )
    })
    request.on('error', failed)
    request.end()
  })
}

test('echo returns text, binary and nothing', async () => {
  const daemon = await Daemon.start('--app', 'echo')
  const client = await daemon.connect()
  for (const message of ['hello', 'Grüße 世界 🌍', '', 'quit']) {
    client.send(message)
    assert.equal(await client.receive(), message)
  }
  for (const message of [Buffer.from([0, 1, 254, 255]), Buffer.alloc(0)]) {
    client.send(message)
    assert.deepEqual(await client.receive(), message)
  }
  client.send('frag', { fin: false })
  client.send('', { fin: false })
  client.send('ments', { fin: true })
  assert.equal(await client.receive(), 'fragments')
  await client.close()
  await daemon.stop()
})

test('echo returns 1 and 16 MiB', async () => {
  const daemon = await Daemon.start('--app', 'echo')
  // Without compression, which would make random bytes larger than the limit on the wire.
  const client = await daemon.connect('', { perMessageDeflate: false })
  for (const size of [MIB, 16 * MIB]) {
    const message = randomBytes(size)
    client.send(message)
    assert.ok(message.equals(await client.receive()), `${size} bytes changed`)
  }
  await client.close()
  await daemon.stop()
})

// A client that sends all of it in one go, as `ws` does, is still writing when it is refused. It
// hears why only if the server goes on reading, or at least keeps the connection, for a moment.
test('one byte more closes with 1009 even to a client that is still sending', async () => {
  const daemon = await Daemon.start('--app', 'echo')
  for (let visit = 0; visit < 10; visit += 1) {
    const client = await daemon.connect('', { perMessageDeflate: false })
    client.socket.on('error', () => {})
    client.send(Buffer.alloc(16 * MIB + 1))
    assert.equal((await client.closed).code, 1009, `close code on visit ${visit}`)
  }
  await daemon.stop()
})

test('health, readiness and metrics over kept connections', async () => {
  const daemon = await Daemon.start()
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
  for (let number = 0; number < 20; number += 1) {
    const health = await ask(daemon.http('/healthz'), { agent })
    assert.deepEqual([health.status, health.body], [200, '{"status": "ok"}'])
    assert.equal(health.reused, number > 0, 'the connection is kept')
    const ready = await ask(daemon.http('/readyz'), { agent })
    assert.deepEqual([ready.status, ready.body], [200, '{"ready": true}'])
  }
  const head = await ask(daemon.http('/metrics'), { agent, method: 'HEAD' })
  assert.deepEqual([head.status, head.body], [200, ''])
  const metrics = await ask(daemon.http('/metrics'), { agent })
  assert.match(metrics.body, /^# TYPE ws_active_connections gauge$/m)
  agent.destroy()
  await daemon.stop()
})

test('fetch, as a browser or a probe has it', async () => {
  const daemon = await Daemon.start()
  const health = await fetch(daemon.http('/healthz'))
  assert.deepEqual(await health.json(), { status: 'ok' })
  const post = await fetch(daemon.http('/healthz'), { method: 'POST', body: 'something' })
  assert.equal(post.status, 405)
  assert.match(post.headers.get('allow'), /GET/)
  assert.equal((await fetch(daemon.http('/nowhere'))).status, 404)
  assert.equal((await fetch(daemon.http(PATH))).status, 426)
  await daemon.stop()
})

test('the third of two connections gets 503', async () => {
  const daemon = await Daemon.start('--limit-concurrency', '2')
  const clients = [await daemon.connect(), await daemon.connect()]
  assert.equal(await refusal(daemon), 503)
  assert.equal((await ask(daemon.http('/healthz'))).status, 200)
  await clients.pop().close()
  // The server learns of the close a moment before or after we do.
  for (let tries = 0; ; tries += 1) {
    try {
      clients.push(await daemon.connect())
      break
    } catch (error) {
      if (tries === 100) throw error
      await pause(20)
    }
  }
  for (const client of clients) await client.close()
  await daemon.stop()
})

test('a drain closes everyone with 1001', async () => {
  const daemon = await Daemon.start('--workers', '4', '--no-access-log')
  const clients = await Promise.all(Array.from({ length: 200 }, () => daemon.connect()))
  for (const client of clients) for (let n = 0; n < 20; n += 1) client.send('hello')
  for (const client of clients) {
    for (let n = 1; n <= 20; n += 1) assert.equal(await client.receive(), `{"count": ${n}}`)
  }
  daemon.signal('SIGTERM')
  for (const client of clients) assert.equal((await client.closed).code, 1001)
  assert.equal(await daemon.exit(), 0)
})

test('readyz says 503 while a drain lasts', async () => {
  const daemon = await Daemon.start('--timeout-graceful-shutdown', '3')
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
  assert.equal((await ask(daemon.http('/readyz'), { agent })).status, 200)
  // Nothing reads this one any more, so its close is never echoed.
  const client = new Client(`ws://127.0.0.1:${daemon.port}${PATH}`)
  await client.opened
  client.socket.pause()
  daemon.signal('SIGTERM')
  await pause(500)
  const ready = await ask(daemon.http('/readyz'), { agent })
  assert.deepEqual([ready.status, ready.body, ready.reused], [503, '{"ready": false}', true])
  assert.equal(await daemon.exit(), 0)
  client.socket.terminate()
  agent.destroy()
})

await run()
