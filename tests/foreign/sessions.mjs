// Cases with Node's `ws`: counting, quit, heartbeat, the forms of session_id, resume, takeover.
//
// The bytes behind these are checked by the Python cases; here it is a second library that must
// find the same. Not here: HTTP, limits and the drain (service.mjs).

import assert from 'node:assert/strict'
import { Daemon, refusal, run, someAtATime, test } from './harness.mjs'

const told = (client) => [
  client.headers['x-session-id'],
  client.headers['x-session-resumed'],
  client.headers['x-session-count'],
]

async function countTo(client, first, last) {
  for (let number = first; number <= last; number += 1) {
    client.send('hello')
    assert.equal(await client.receive(), `{"count": ${number}}`)
  }
}

test('text and binary are counted', async () => {
  const daemon = await Daemon.start()
  const client = await daemon.connect()
  const sent = ['hello', Buffer.from([0, 255]), '', Buffer.alloc(0), 'Grüße', 'x'.repeat(70_000)]
  for (const [index, message] of sent.entries()) {
    client.send(message)
    const reply = await client.receive()
    assert.equal(typeof reply, 'string', 'the reply is text')
    assert.equal(reply, `{"count": ${index + 1}}`)
  }
  await client.close()
  await daemon.stop()
})

test('a thousand in one go are answered in order', async () => {
  const daemon = await Daemon.start()
  const client = await daemon.connect()
  for (let number = 0; number < 1000; number += 1) client.send(`message ${number}`)
  for (let number = 1; number <= 1000; number += 1) {
    assert.equal(await client.receive(), `{"count": ${number}}`)
  }
  await client.close()
  await daemon.stop()
})

test('fragments make one message', async () => {
  const daemon = await Daemon.start()
  const client = await daemon.connect()
  client.send('one ', { fin: false })
  client.send('message ', { fin: false })
  client.socket.ping('in between')
  client.send('in three', { fin: true })
  assert.equal(await client.receive(), '{"count": 1}')
  await client.close()
  await daemon.stop()
})

test('quit says goodbye', async () => {
  const daemon = await Daemon.start()
  for (const word of ['quit', 'quit\n', 'quit \r\n']) {
    const client = await daemon.connect()
    await countTo(client, 1, 2)
    client.send(word)
    assert.equal(await client.receive(), '{"bye": true, "total": 2}')
    assert.deepEqual(await client.closed, { code: 1000, reason: 'quit command received' })
  }
  await daemon.stop()
})

test('the heartbeat comes', async () => {
  const daemon = await Daemon.start('--heartbeat', '1')
  const client = await daemon.connect()
  for (let beat = 0; beat < 2; beat += 1) {
    const message = await client.receive()
    assert.match(message, /^\{"ts": "\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}"\}$/)
    const distance = Math.abs(Date.parse(`${JSON.parse(message).ts}Z`) - Date.now())
    assert.ok(distance < 5000, `${distance} ms from now`)
  }
  await client.close()
  await daemon.stop()
})

test('pings are answered by the library and keep it open', async () => {
  const daemon = await Daemon.start('--ws-ping-interval', '0.5', '--ws-ping-timeout', '2')
  const client = await daemon.connect()
  while (client.pings < 4) await new Promise((done) => client.socket.once('ping', done))
  await countTo(client, 1, 1)
  await client.close()
  await daemon.stop()
})

test('who answers no pings is closed', async () => {
  const daemon = await Daemon.start('--ws-ping-interval', '0.5', '--ws-ping-timeout', '0.5')
  const client = await daemon.connect('', { autoPong: false })
  const { code } = await client.closed
  assert.ok(code !== 1000 && code !== 1001, `closed with ${code}`)
  assert.ok(client.pings >= 1, 'closed without a ping')
  await daemon.stop()
})

test('the three forms of session_id, and hello=1', async () => {
  const daemon = await Daemon.start('--workers', '4')
  const fresh = await daemon.connect()
  assert.deepEqual(told(fresh).slice(1), ['false', '0'])
  await countTo(fresh, 1, 1)
  await fresh.close()

  const empty = await daemon.connect('?session_id=')
  const [id] = told(empty)
  assert.equal(await empty.receive(), `{"session_id": "${id}", "count": 0, "resumed": false}`)
  await countTo(empty, 1, 2)
  await empty.close()

  const again = await daemon.connect(`?session_id=${id}&hello=1`)
  assert.deepEqual(told(again), [id, 'true', '2'])
  assert.equal(await again.receive(), `{"session_id": "${id}", "count": 2, "resumed": true}`)
  await countTo(again, 3, 3)
  await again.close()

  const chosen = await daemon.connect('?session_id=alice')
  assert.deepEqual(told(chosen), ['alice', 'false', '0'])
  await countTo(chosen, 1, 1)
  await chosen.close()
  await daemon.stop()
})

test('bad ids are refused with 400', async () => {
  const daemon = await Daemon.start()
  for (const id of ['%00', 'a%2Fb', 'a+b', '%zz', 'x'.repeat(129)]) {
    assert.equal(await refusal(daemon, `?session_id=${id}`), 400, id)
  }
  assert.equal(await refusal(daemon, '', '/elsewhere/'), 404)
  await daemon.stop()
})

test('strict mode gives an unknown id a new one', async () => {
  const daemon = await Daemon.start('--session-ids', 'issued', '--workers', '4')
  const planted = await daemon.connect('?session_id=planted')
  const [id, resumed, count] = told(planted)
  assert.notEqual(id, 'planted')
  assert.deepEqual([resumed, count], ['false', '0'])
  await countTo(planted, 1, 1)
  await planted.close()
  const back = await daemon.connect(`?session_id=${id}`)
  assert.deepEqual(told(back), [id, 'true', '1'])
  await back.close()
  await daemon.stop()
})

test(
  'a thousand reconnects on four reactors',
  async () => {
    const daemon = await Daemon.start('--workers', '4', '--no-access-log')
    await someAtATime(100, async (n) => {
      // Half of the ids are chosen here, half issued there.
      let id = n % 2 ? `node-${n}` : undefined
      for (let visit = 0; visit < 10; visit += 1) {
        const client = await daemon.connect(id ? `?session_id=${id}` : '')
        id ??= told(client)[0]
        assert.deepEqual(told(client), [id, visit > 0 ? 'true' : 'false', String(visit)])
        await countTo(client, visit + 1, visit + 1)
        if (visit % 3 === 2) client.socket.terminate()
        else await client.close()
      }
    })
    await daemon.stop()
  },
  90,
)

test('the newer connection takes over', async () => {
  const daemon = await Daemon.start('--workers', '4')
  await someAtATime(40, async (n) => {
    const older = await daemon.connect(`?session_id=both-${n}`)
    await countTo(older, 1, 2)
    const newer = await daemon.connect(`?session_id=both-${n}`)
    assert.deepEqual(told(newer), [`both-${n}`, 'true', '2'])
    assert.deepEqual(await older.closed, { code: 4001, reason: 'session taken over' })
    await countTo(newer, 3, 4)
    await newer.close()
  })
  await daemon.stop()
})

await run()
