// Cases: the reactors' half of the page. Figures that agree with /metrics and move under load, every
// kind of slot, the store, hand-overs and close codes, 10,000 connections, and that nobody is asked when nobody
// looks.
//
// How smooth it is with 10,000 is measured in the page and printed; asserted is that it goes on.
// The README's picture, live.png, is wide-dark.png of target/page, with a palette of 256 colours.

import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect as dial } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { Daemon, PATH, connect, descriptors, noComplaints, pause, run, screenshot, shows, slots, test, text, total, until } from './harness.mjs'

// The sum of a metric's samples.
async function metric(daemon, name) {
  const page = await (await fetch(daemon.http('/metrics'))).text()
  const samples = page.split('\n').filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `))
  return samples.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0)
}

const card = (page, number) => page.locator('.reactor').nth(number)

test('shows each reactor, with the figures of /metrics, moving under load', async (visit) => {
  const daemon = await Daemon.start('--workers', '3', '--no-access-log')
  const page = await visit.open(daemon)
  await shows(page, 'live', 'Live, once a second.')
  assert.equal(await page.locator('.reactor').count(), 3)
  await shows(page, 'about', /· 3 reactors$/)
  const crowd = await visit.crowd(daemon, 300, 1000)
  await until('all are open', async () => (await slots(page, 'open')) === 300)
  await until('messages flow', async () => (await total(page, 'Messages a second')) > 100)
  await until('turns are made', async () => (await total(page, 'Turns a second')) > 10)
  await until('bytes come in', async () => (await total(page, 'Bytes in a second')) > 0)
  const busy = page.locator('.reactor header p').first()
  await until('a reactor is busy', async () => Number.parseFloat(await busy.innerText()) > 0)
  assert.match(await card(page, 0).locator('.turn').innerText(), /^A turn: asleep .*s, [\d.]+ events?, busy .*s$/)
  assert.match(await page.locator('#hand-overs svg').getAttribute('aria-label'), /^Connections handed over: .*from 0 to 1/)
  await screenshot(page, 'load')
  crowd.leave()
  await until('they are gone', async () => (await slots(page, 'open')) === 0)
  const messages = await metric(daemon, 'revolve_messages_total')
  await until('the messages are those of /metrics', async () => (await total(page, 'Messages a second', true)) === messages)
  assert.equal(await total(page, 'Sessions', true), await metric(daemon, 'revolve_sessions_detached'))
  const accepted = await metric(daemon, 'revolve_accepts_total')
  await until('so are the connections', async () => (await total(page, 'Connections', true)) === accepted)
  const lost = page.locator('#closes tr', { hasText: '1006' })
  assert.equal((await lost.locator('td').nth(2).innerText()).trim(), '300')
  noComplaints(page)
  await daemon.stop()
})

test('every kind of slot is shown', async (visit) => {
  const daemon = await Daemon.start('--workers', '2', '--app', 'echo', '--max-send-buffer', '65536')
  const page = await visit.open(daemon)
  await connect(page)
  const silent = Array.from({ length: 7 }, () => dial({ port: daemon.port, host: '127.0.0.1' }))
  // One that talks and does not read, and one that breaks a rule and stays.
  const flooding = await daemon.connect('', { perMessageDeflate: false })
  flooding.socket.pause()
  const piece = Buffer.alloc(1 << 20)
  for (let sent = 0; sent < 32; sent += 1) flooding.send(piece)
  const broken = dial({ port: daemon.port, host: '127.0.0.1', allowHalfOpen: true }).resume()
  broken.write(`GET ${PATH} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n')
  broken.write(Buffer.from([0xff, 0xff]))
  for (const [kind, count] of [['handshaking', 7], ['throttled', 1], ['closing', 1], ['open', 1], ['watching', 1]]) {
    await until(`${count} ${kind}`, async () => (await slots(page, kind)) === count, () => slots(page, kind))
  }
  const labels = await page.locator('.slab').evaluateAll((all) => all.map((one) => one.ariaLabel).join())
  for (const kind of ['handshaking', 'throttled', 'closing', 'watching']) assert.ok(labels.includes(kind), labels)
  await screenshot(page, 'every-kind')
  for (const socket of silent) socket.destroy()
  flooding.socket.terminate()
  broken.destroy()
  await until('they are gone', async () => (await slots(page, 'handshaking')) + (await slots(page, 'throttled')) === 0)
  noComplaints(page)
  await daemon.stop()
})

// A figure of the store's panel, as a number in the unit that is shown.
const stored = (page, name) => page.evaluate((name) => {
  const entry = [...document.querySelectorAll('#store-figures > div')].find((div) => div.querySelector('dt').innerText === name)
  return Number.parseFloat(entry?.querySelector('dd').innerText.replace(',', '') ?? '')
}, name)

test('a store shows what it does, and without one nothing tells of it', async (visit) => {
  const directory = await mkdtemp(join(tmpdir(), 'revolve-page-'))
  const daemon = await Daemon.start('--workers', '2', '--no-access-log', '--store', `file:${directory}`)
  const page = await visit.open(daemon)
  await shows(page, 'live', 'Live, once a second.')
  assert.ok(await page.isVisible('#store'))
  assert.ok(await page.locator('#legend li', { hasText: 'held' }).isVisible())
  const crowd = await visit.crowd(daemon, 50, 1000)
  const figures = () => page.locator('#store-figures').innerText()
  for (const name of ['Commits a second', 'Sessions a commit', 'Commits a sync', 'A sync', 'Written a second', 'Segments']) {
    await until(`${name} is known`, async () => (await stored(page, name)) > 0, figures)
  }
  assert.match(await figures(), /A sync\s+[\d.]+ (µs|ms|s)/)
  assert.match(await figures(), /Connections that wait\s+\d+/)
  await screenshot(page, 'store')
  crowd.leave()
  await until('nothing is written any more', async () => (await stored(page, 'Commits a second')) === 0, figures)
  assert.equal(await stored(page, 'Connections that wait'), 0)
  noComplaints(page)
  await daemon.stop()
  await rm(directory, { recursive: true })
  const without = await Daemon.start()
  const plain = await visit.open(without)
  await shows(plain, 'live', 'Live, once a second.')
  assert.ok(!(await plain.isVisible('#store')))
  assert.ok(!(await plain.locator('#legend li', { hasText: 'held' }).isVisible()))
  noComplaints(plain)
  await without.stop()
})

test('paused, nobody is asked and nobody turns', async (visit) => {
  const daemon = await Daemon.start('--workers', '2', '--heartbeat', '0', '--ws-ping-interval', '0')
  const page = await visit.open(daemon)
  await shows(page, 'live', 'Live, once a second.')
  await page.click('#pause')
  await shows(page, 'live', 'Paused: the server looks at nothing.')
  assert.equal(await page.getAttribute('#pause', 'aria-pressed'), 'true')
  // The scrape itself makes a turn or two on the reactor that answers it.
  const turns = async () => metric(daemon, 'revolve_turns_total')
  await until('it comes to rest', async () => {
    const before = await turns()
    await pause(3000)
    return (await turns()) - before < 6
  })
  await page.click('#pause')
  await shows(page, 'live', 'Live, once a second.')
  noComplaints(page)
  await daemon.stop()
})

test('a server that goes away is told, and the figures are dimmed', async (visit) => {
  const daemon = await Daemon.start()
  const page = await visit.open(daemon, { expected: /WebSocket connection to .* failed/ })
  await shows(page, 'live', 'Live, once a second.')
  await daemon.stop()
  await shows(page, 'live', /trying again/)
  assert.ok(await page.locator('#reactors.stale').count())
  noComplaints(page)
})

test('it is not there when it is switched off', async (visit) => {
  const daemon = await Daemon.start('--no-page')
  assert.ok(!daemon.log.includes('live page'), 'and not announced')
  const page = await visit.open(daemon, { expected: /404/ })
  assert.equal(await page.locator('body').innerText(), 'no such path\n')
  noComplaints(page)
  await daemon.stop()
})

// Times between pictures while something runs, in ms, sorted; and how often the figures changed.
const smoothness = (page, seconds) => page.evaluate((seconds) => new Promise((done) => {
  const gaps = []
  let updates = 0
  const observer = new MutationObserver(() => { updates += 1 })
  const turns = [...document.querySelectorAll('#totals small')][3]
  observer.observe(turns, { childList: true, characterData: true, subtree: true })
  const begin = performance.now()
  let last = begin
  const picture = (now) => {
    gaps.push(now - last)
    last = now
    if (now - begin < seconds * 1000) return requestAnimationFrame(picture)
    observer.disconnect()
    done({ gaps: gaps.slice(1).sort((a, b) => a - b), updates })
  }
  requestAnimationFrame(picture)
}), seconds)

test('ten thousand connections, and it stays smooth', async (visit) => {
  // Fewer where the process may not have so many descriptors: the daemon needs one for each, too.
  const MANY = Math.min(10_000, descriptors - 200)
  const daemon = await Daemon.start('--workers', '2', '--no-access-log')
  const page = await visit.open(daemon)
  await shows(page, 'live', 'Live, once a second.')
  const tell = (what, { gaps, updates }) => {
    const at = (share) => gaps[Math.floor((gaps.length - 1) * share)].toFixed(1)
    console.log(`  ${what}: ${gaps.length} pictures, ${updates} updates; between two pictures ` +
      `${at(0.5)} ms in the middle, ${at(0.99)} ms for 99 of 100, ${at(1)} ms at most`)
  }
  tell('nobody there', await smoothness(page, 5))
  await visit.crowd(daemon, MANY, 2000)
  await until('all are open', async () => (await slots(page, 'open')) === MANY, () => slots(page, 'open'))
  const measured = await smoothness(page, 10)
  tell(`${MANY} connections open, 2,000 messages a second`, measured)
  assert.ok(measured.updates >= 3, `${measured.updates} updates in ten seconds`)
  const drawing = await page.evaluate(() => {
    const canvases = [...document.querySelectorAll('.slab')]
    return canvases.map((canvas) => {
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
      return data.some((value) => value > 0)
    })
  })
  assert.deepEqual(drawing, [true, true], 'the slabs are drawn')
  await connect(page)
  await page.selectOption('#times', '100')
  await page.click('#send')
  await shows(page, 'count', 100)
  await screenshot(page, 'ten-thousand')
  noComplaints(page)
  await daemon.stop()
}, 240)

test('pictures of it, dark and light, wide and narrow', async (visit) => {
  const daemon = await Daemon.start('--workers', '2', '--no-access-log', '--timeout-handshake', '600')
  await visit.crowd(daemon, 700, 3000)
  const silent = Array.from({ length: 9 }, () => dial({ port: daemon.port, host: '127.0.0.1' }))
  for (let number = 0; number < 20; number += 1) {
    const passing = await daemon.connect(`?session_id=passing-${number}`)
    passing.send('hello')
    await passing.receive()
    await passing.close(1000)
  }
  for (const colorScheme of ['dark', 'light']) {
    for (const [size, viewport, fullPage] of [['wide', { width: 1440, height: 900 }, false], ['narrow', { width: 390, height: 844 }, true]]) {
      const page = await visit.open(daemon, { colorScheme, viewport, deviceScaleFactor: size === 'narrow' ? 2 : 1 })
      await connect(page)
      await page.selectOption('#times', '10')
      await page.click('#send')
      await shows(page, 'count', 10)
      await page.click('#lose')
      await shows(page, 'sentence', /The count goes on/)
      // So that the minute's line has a beginning.
      await until('messages flow', async () => (await total(page, 'Messages a second')) > 100)
      await pause(4000)
      await screenshot(page, `${size}-${colorScheme}`, { fullPage })
      const widest = await page.evaluate(() => document.documentElement.scrollWidth)
      assert.ok(widest <= viewport.width, `${widest} wide in ${viewport.width}`)
      noComplaints(page)
      await page.context().close()
    }
  }
  for (const socket of silent) socket.destroy()
  await daemon.stop()
})

await run()
