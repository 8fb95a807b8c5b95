// The daemon as a child process, the `ws` client, and the runner that prints one line a case.
//
// The same manner as harness.py: each file says `test(name, body)` for its cases and ends with
// `await run()`; a case starts its own daemon and is bounded by a time.
//
// Starts nothing but the daemon, and ends nothing but what it started, by process id.
//
// Called by every other *.mjs of this directory; tests/run calls those.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'

const root = new URL('../../', import.meta.url)
const binary = process.env.FOREIGN_BINARY ?? fileURLToPath(new URL('target/release/revolve', root))

// `ws` is installed under target/, not beside this file: resolve it from there.
const modules =
  process.env.FOREIGN_NODE ?? fileURLToPath(new URL('target/foreign/node', root))
export const { WebSocket } = createRequire(`${modules}/`)('ws')

export const PATH = '/ws/chat/'

const cases = []
const running = new Set()

export function test(name, body, seconds = 30) {
  cases.push({ name, body, seconds })
}

export const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds))

export class Daemon {
  // Starts it on a port the kernel picks and waits until its log names the address.
  static async start(...options) {
    const daemon = new Daemon()
    const environment = Object.fromEntries(
      Object.entries(process.env).filter(([name]) => !name.startsWith('REVOLVE_')),
    )
    daemon.options = options
    daemon.log = ''
    daemon.process = spawn(binary, ['--port', '0', ...options], {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: environment,
    })
    running.add(daemon)
    daemon.ended = once(daemon.process, 'exit')
    daemon.port = await new Promise((found, failed) => {
      daemon.process.stderr.on('data', (piece) => {
        daemon.log += piece
        const address = /127\.0\.0\.1:(\d{2,5})\D/.exec(daemon.log)
        if (address) found(Number(address[1]))
      })
      daemon.process.on('error', failed)
      daemon.process.on('exit', () => failed(new Error(`no address in: ${daemon.log}`)))
    })
    return daemon
  }

  signal(name) {
    this.process.kill(name)
  }

  // The exit code, or the name of the signal that ended it.
  async exit() {
    const [code, signal] = await this.ended
    running.delete(this)
    assert.ok(!this.log.includes('panicked'), 'the log tells of a panic')
    return code ?? signal
  }

  async stop() {
    this.signal('SIGTERM')
    assert.equal(await this.exit(), 0, 'exit code after SIGTERM')
  }

  kill() {
    if (this.process.exitCode === null && this.process.signalCode === null) {
      this.process.kill('SIGKILL')
    }
    running.delete(this)
  }

  http(path = '/healthz') {
    return `${this.scheme ?? 'http'}://127.0.0.1:${this.port}${path}`
  }

  // An open client, with the 101's headers and everything it heard.
  async connect(query = '', options = {}) {
    const url = `${options.scheme ?? 'ws'}://127.0.0.1:${this.port}${options.path ?? PATH}${query}`
    const client = new Client(url, options)
    await client.opened
    return client
  }
}

// A `ws` client whose messages, pings and close can be awaited in order.
export class Client {
  #messages = []
  #waiting = []

  constructor(url, options = {}) {
    this.socket = new WebSocket(url, options)
    this.pings = 0
    this.socket.on('upgrade', (response) => (this.headers = response.headers))
    this.socket.on('ping', () => (this.pings += 1))
    this.socket.on('message', (data, binary) => {
      const message = binary ? data : data.toString()
      const waiting = this.#waiting.shift()
      if (waiting) waiting.found(message)
      else this.#messages.push(message)
    })
    this.closed = new Promise((done) => {
      this.socket.on('close', (code, reason) => {
        done({ code, reason: reason.toString() })
        const gone = new Error(`closed with ${code} ${reason} where a message was due`)
        for (const waiting of this.#waiting.splice(0)) waiting.failed(gone)
      })
    })
    this.opened = new Promise((found, failed) => {
      this.socket.on('open', found)
      this.socket.on('error', failed)
    })
  }

  send(data, options = {}) {
    this.socket.send(data, options)
  }

  async receive() {
    if (this.#messages.length > 0) return this.#messages.shift()
    assert.notEqual(this.socket.readyState, WebSocket.CLOSED, 'closed where a message was due')
    return new Promise((found, failed) => this.#waiting.push({ found, failed }))
  }

  async close(code = 1000) {
    this.socket.close(code)
    return this.closed
  }
}

// The HTTP status with which an upgrade is refused.
export async function refusal(daemon, query = '', path = PATH) {
  const socket = new WebSocket(`ws://127.0.0.1:${daemon.port}${path}${query}`)
  return new Promise((found, failed) => {
    socket.on('unexpected-response', (request, response) => {
      found(response.statusCode)
      request.destroy()
    })
    socket.on('open', () => failed(new Error(`${query} was let in`)))
    socket.on('error', failed)
  })
}

// Runs `job(n)` for n below `times`, `width` of them at once.
export async function someAtATime(times, job, width = 20) {
  let next = 0
  const lane = async () => {
    while (next < times) await job(next++)
  }
  await Promise.all(Array.from({ length: width }, lane))
}

function killAll() {
  for (const daemon of running) daemon.kill()
}

process.on('exit', killAll)
process.on('SIGTERM', () => process.exit(143))

// Runs the cases of the file, or those whose names are given as arguments; exits 0 or 1.
export async function run() {
  const wanted = process.argv.slice(2)
  const chosen = cases.filter(({ name }) => wanted.length === 0 || wanted.includes(name))
  if (chosen.length === 0) throw new Error(`no such case: ${wanted}`)
  let failed = 0
  for (const { name, body, seconds } of chosen) {
    const began = performance.now()
    const took = () => `(${((performance.now() - began) / 1000).toFixed(2)} s)`
    let timer
    const overdue = new Promise((_, fail) => {
      timer = setTimeout(() => fail(new Error(`not done within ${seconds} s`)), seconds * 1000)
    })
    try {
      await Promise.race([body(), overdue])
      console.log(`  PASS ${name} ${took()}`)
    } catch (error) {
      failed += 1
      console.log(`  FAIL ${name} ${took()}: ${error.stack}`)
      for (const daemon of running) {
        console.log(`       the end of the log of ${daemon.options.join(' ')}:`)
        for (const line of daemon.log.split('\n').slice(-12)) console.log(`       | ${line}`)
      }
    } finally {
      clearTimeout(timer)
      killAll()
    }
  }
  console.log(`  ${chosen.length - failed} of ${chosen.length} cases passed`)
  process.exit(failed === 0 ? 0 : 1)
}
