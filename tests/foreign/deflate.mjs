// Cases: --ws-per-message-deflate with Node's `ws`, which offers to compress by default. Needs a
// daemon built with the feature `deflate`.
//
// Not here: what is refused (the Rust tests).

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { Daemon, run, someAtATime, test } from './harness.mjs'

const MIB = 1 << 20
const ON = ['--ws-per-message-deflate', 'true']
const AGREED = 'permessage-deflate; server_no_context_takeover; client_no_context_takeover'

// Text as services send it.
function rows(size) {
  let text = ''
  for (let n = 0; text.length < size; n += 1) {
    text += `{"id": ${n}, "at": ${(n * 7919) % 1000}, "on": true}, `
  }
  return text.slice(0, size)
}

async function echoes(client, size) {
  const [text, bytes] = [rows(size), randomBytes(size)]
  client.send(text)
  client.send(bytes)
  assert.equal(await client.receive(), text)
  assert.ok(bytes.equals(await client.receive()), `${size} bytes changed`)
}

test('a client with its defaults compresses', async () => {
  const daemon = await Daemon.start('--app', 'echo', ...ON)
  const client = await daemon.connect()
  assert.equal(client.headers['sec-websocket-extensions'], AGREED)
  assert.equal(client.socket.extensions, 'permessage-deflate')
  for (const size of [0, 1, 125, 126, 1023, 1024, 1025, 65535, 65536, MIB, 3 * MIB]) {
    await echoes(client, size)
  }
  client.send('Grüße 世界 🌍'.repeat(1000))
  assert.equal(await client.receive(), 'Grüße 世界 🌍'.repeat(1000))
  await client.close()
  await daemon.stop()
})

test('even the shortest message compressed, in fragments too', async () => {
  const daemon = await Daemon.start('--app', 'echo', ...ON)
  const client = await daemon.connect('', { perMessageDeflate: { threshold: 0 } })
  for (const size of [0, 1, 5, 16, 100, 5000]) await echoes(client, size)
  client.send('frag', { fin: false, compress: true })
  client.send('', { fin: false, compress: true })
  client.send('ments', { fin: true, compress: true })
  assert.equal(await client.receive(), 'fragments')
  await client.close()
  await daemon.stop()
})

test('every window', async () => {
  const daemon = await Daemon.start('--app', 'echo', ...ON)
  // `ws` asks for none below 9: zlib in Node has none.
  for (let bits = 9; bits <= 15; bits += 1) {
    const perMessageDeflate = {
      serverMaxWindowBits: bits,
      clientMaxWindowBits: bits,
      serverNoContextTakeover: true,
      clientNoContextTakeover: true,
      threshold: 0,
    }
    const client = await daemon.connect('', { perMessageDeflate })
    const agreed = client.headers['sec-websocket-extensions']
    assert.equal(agreed, `${AGREED}; server_max_window_bits=${bits}`)
    for (const size of [10, 1024, 10_000, 100_000]) await echoes(client, size)
    await client.close()
  }
  await daemon.stop()
})

test('200 clients, every other one compressing', async () => {
  const daemon = await Daemon.start('--app', 'echo', '--workers', '2', ...ON)
  await someAtATime(200, async (n) => {
    const client = await daemon.connect('', { perMessageDeflate: n % 2 === 0 })
    for (const size of [n, 10 * n, 100 * n]) await echoes(client, size)
    await client.close()
  })
  await daemon.stop()
})

test('the counter, and a limit that counts what a message is', async () => {
  const daemon = await Daemon.start('--ws-max-size', '2000', ...ON)
  const client = await daemon.connect('', { perMessageDeflate: { threshold: 0 } })
  client.send(rows(2000))
  assert.equal(await client.receive(), '{"count": 1}')
  client.send(rows(2001))
  assert.equal((await client.closed).code, 1009)
  await daemon.stop()
})

await run()
