// Cases: what the page shows of a Redis that several servers share: how fast it answers, what is claimed, who takes over, and
// that it is away.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect as dial } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { Daemon, noComplaints, run, screenshot, shows, test, until } from './harness.mjs'

// A Redis of the test's own, at a Unix path.
async function redis(directory) {
  const path = join(directory, 'redis.sock')
  const server = spawn('redis-server', ['--port', '0', '--unixsocket', path, '--save', '', '--dir', directory], { stdio: 'ignore' })
  await until('Redis is there', () => new Promise((resolve) => {
    const socket = dial(path)
    socket.once('connect', () => { socket.destroy(); resolve(true) })
    socket.once('error', () => resolve(false))
  }), () => path)
  return { path, end: async () => { const ended = once(server, 'exit'); server.kill('SIGKILL'); await ended } }
}

const shown = (page, name) => page.evaluate((name) => {
  const entry = [...document.querySelectorAll('#store-figures > div')].find((div) => div.querySelector('dt').innerText === name)
  return entry?.querySelector('dd').innerText ?? ''
}, name)

test('a Redis that servers share shows how it answers, and that it is away', async (visit) => {
  const directory = await mkdtemp(join(tmpdir(), 'revolve-page-'))
  const store = await redis(directory)
  const options = ['--no-access-log', '--store', `unix:${store.path}`, '--store-timeout', '1']
  const [daemon, other] = [await Daemon.start('--workers', '2', ...options), await Daemon.start('--workers', '1', ...options)]
  const page = await visit.open(daemon)
  await shows(page, 'live', 'Live, once a second.')
  const figures = () => page.locator('#store-figures').innerText()
  const crowd = await visit.crowd(daemon, 50, 1000)
  for (const name of ['Commits a second', 'Sessions a commit', 'Commits a round trip']) {
    await until(`${name} is known`, async () => Number.parseFloat(await shown(page, name)) > 0, figures)
  }
  assert.match(await figures(), /A round trip\s+[\d.]+ (µs|ms|s)/)
  assert.equal(await shown(page, 'It is'), 'there')
  assert.ok(!(await figures()).includes('Segments'), 'that is the log\'s')
  await screenshot(page, 'shared')
  // A session of this one goes to the other.
  const first = await daemon.connect('?session_id=taken-over')
  const second = await other.connect('?session_id=taken-over')
  assert.equal((await first.closed).code, 4001)
  await until('it is told of the takeover', async () => (await shown(page, 'Taken over by others')) === '1', figures)
  crowd.leave()
  noComplaints(page)
  await store.end()
  await until('Redis is away', async () => (await shown(page, 'It is')) === 'away', figures)
  second.socket.terminate()
  await daemon.stop()
  await other.stop()
  await rm(directory, { recursive: true })
})

await run()
