// A crowd of clients, in a process of its own: so many WebSockets on bare sockets, each with a
// session, some of them talking.
//
//   node crowd.mjs PORT CONNECTIONS MESSAGES_A_SECOND
//
// Prints "open" once all are, and goes on until its standard input ends. Reads what comes and looks
// at nothing of it but the status of the 101. Started by crowd() in harness.mjs.

import { connect } from 'node:net'

const [port, connections, rate] = process.argv.slice(2).map(Number)
const AT_ONCE = 200

// A masked text frame, mask zero: "hello" as it stands.
const HELLO = Buffer.from([0x81, 0x85, 0, 0, 0, 0, ...Buffer.from('hello')])

const upgrade = (number) =>
  `GET /ws/chat/?session_id=crowd-${number} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n` +
  'Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n'

const open = []

function join(number) {
  return new Promise((joined, failed) => {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true })
    socket.on('error', failed)
    socket.on('close', () => failed(new Error('the server closed a connection')))
    socket.write(upgrade(number))
    socket.once('data', (data) => {
      if (!data.toString('latin1').startsWith('HTTP/1.1 101 ')) return failed(new Error(`${data}`))
      socket.resume()
      open.push(socket)
      joined()
    })
  })
}

let next = 0
const lane = async () => {
  while (next < connections) await join(next++)
}
await Promise.all(Array.from({ length: AT_ONCE }, lane))
console.log('open')

// In ticks of 20 ms, round and round.
let speaker = 0
setInterval(() => {
  for (let left = rate / 50; left > 0; left -= 1) open[speaker++ % open.length].write(HELLO)
}, 20)

process.stdin.on('end', () => process.exit(0))
process.stdin.resume()
