// Cases: the page without a mouse, without eyes, without motion; and what its headers promise.
//
// axe-core finds what a program can find (contrast, names, roles, landmarks); the rest is walked
// through with the keyboard.

import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { Daemon, axe, connect, isOpen, noComplaints, pause, run, shows, test, text } from './harness.mjs'

test('axe finds nothing, in both schemes, wide and narrow, in every state', async (visit) => {
  // With a store, so that its panel is looked at, too.
  const directory = await mkdtemp(join(tmpdir(), 'revolve-page-'))
  const daemon = await Daemon.start('--workers', '2', '--no-access-log', '--store', `file:${directory}`)
  await visit.crowd(daemon, 20, 100)
  for (const [colorScheme, width] of [['dark', 1440], ['light', 1440], ['dark', 390], ['light', 390]]) {
    // Without motion: a colour on its way to another has neither one's contrast.
    const page = await visit.open(daemon, { colorScheme, viewport: { width, height: 900 }, reducedMotion: 'reduce' })
    const check = async (state) => {
      // Through the inspector, which the page's policy does not bind.
      await page.evaluate(`${axe.source}; 0`)
      const { violations, passes } = await page.evaluate(() => globalThis.axe.run())
      const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`)
      assert.deepEqual(found, [], `${state}, ${colorScheme}, ${width}`)
      assert.ok(passes.length > 20, `only ${passes.length} rules apply`)
    }
    await shows(page, 'live', 'Live, once a second.')
    await check('idle')
    await connect(page)
    await page.click('#send')
    await shows(page, 'count', 1)
    await check('open')
    await page.click('#quit')
    await shows(page, 'sentence', /^Closed/)
    await page.click('#pause')
    await check('closed and paused')
    noComplaints(page)
    await page.context().close()
  }
  await daemon.stop()
  await rm(directory, { recursive: true })
})

test('the keyboard reaches and does everything', async (visit) => {
  const daemon = await Daemon.start()
  const page = await visit.open(daemon)
  const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.className)
  const press = (key) => page.keyboard.press(key)
  const hasRing = () => page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle !== 'none')
  await press('Tab')
  assert.equal(await focused(), 'skip')
  await press('Tab')
  assert.equal(await focused(), 'session')
  await page.keyboard.type('keys')
  await press('Enter')
  await isOpen(page)
  const order = []
  for (const _ of Array(9)) {
    await press('Tab')
    order.push(await focused())
    assert.ok(await hasRing(), `the focus on ${order.at(-1)} is seen`)
  }
  assert.deepEqual(order, ['connect', 'lose', 'second', 'quit', 'fresh', 'message', 'times', 'send', 'frames'])
  await press('Tab')
  assert.equal(await focused(), 'pause')
  await press('Space')
  await shows(page, 'live', 'Paused: the server looks at nothing.')
  await page.focus('#message')
  for (const count of [1, 2]) {
    await press('Enter')
    await shows(page, 'count', count)
    assert.equal(await focused(), 'message', 'the focus stays where one writes')
  }
  // A button that has nothing to do keeps the focus, too.
  await page.focus('#lose')
  await press('Enter')
  await shows(page, 'sentence', 'Connection lost, on purpose.')
  assert.equal(await focused(), 'lose')
  await isOpen(page)
  await page.focus('.skip')
  await press('Enter')
  assert.equal(await focused(), 'reactors')
  noComplaints(page)
  await daemon.stop()
})

test('a screen reader is told of changes of state, and not of every number', async (visit) => {
  const daemon = await Daemon.start('--workers', '2', '--no-access-log')
  const page = await visit.open(daemon)
  await connect(page)
  await shows(page, 'live', 'Live, once a second.')
  await page.evaluate(() => {
    globalThis.announced = []
    const observer = new MutationObserver((changes) => {
      for (const { target } of changes) globalThis.announced.push(target.textContent)
    })
    for (const region of document.querySelectorAll('[role=status], [role=alert], [aria-live], output')) {
      observer.observe(region, { childList: true, characterData: true, subtree: true })
    }
  })
  await page.selectOption('#times', '1000')
  await page.click('#send')
  await shows(page, 'count', '1,000')
  await pause(3500)
  assert.deepEqual(await page.evaluate(() => globalThis.announced), [])
  await page.click('#lose')
  await shows(page, 'sentence', /resumed at 1,000/)
  const announced = await page.evaluate(() => globalThis.announced)
  assert.deepEqual(announced, [
    'Connection lost, on purpose.',
    'Connecting…',
    'Open. The session was resumed at 1,000. The count goes on.',
  ])
  // What is hidden, as the store is where there is none, is no landmark.
  const landmarks = await page.locator(':is(header.top, main, section[aria-labelledby]):visible').count()
  assert.equal(landmarks, 6)
  noComplaints(page)
  await daemon.stop()
})

test('nothing moves for whoever asked for that', async (visit) => {
  const daemon = await Daemon.start('--workers', '2', '--no-access-log')
  const crowd = await visit.crowd(daemon, 50, 500)
  for (const [reducedMotion, moves] of [['reduce', false], ['no-preference', true]]) {
    const page = await visit.open(daemon, { reducedMotion })
    await shows(page, 'live', 'Live, once a second.')
    await pause(2500)
    const animations = await page.evaluate(() => document.getAnimations().length)
    assert.equal(animations > 0, moves, `${animations} animations with ${reducedMotion}`)
    noComplaints(page)
    await page.context().close()
  }
  crowd.leave()
  await daemon.stop()
})

test('the policy holds: no other script, no frame, no other place', async (visit) => {
  const daemon = await Daemon.start()
  const page = await visit.open(daemon, { expected: /Content Security Policy|Trusted ?Types?|TrustedHTML|require/i })
  const blocked = await page.evaluate(async () => {
    const directives = []
    document.addEventListener('securitypolicyviolation', ({ effectiveDirective }) => directives.push(effectiveDirective))
    const script = document.createElement('script')
    try {
      script.textContent = 'globalThis.wasRun = true'
      document.body.append(script)
    } catch {
      // Trusted Types refuse it even earlier.
    }
    try {
      document.body.insertAdjacentHTML('beforeend', '<b>markup</b>')
      directives.push('markup from text was let in')
    } catch {
      // As it should be.
    }
    await fetch('http://127.0.0.1:9/').catch(() => {})
    const image = new Image()
    image.src = '/healthz'
    await new Promise((done) => setTimeout(done, 300))
    return { directives, wasRun: globalThis.wasRun ?? false }
  })
  assert.equal(blocked.wasRun, false)
  for (const directive of ['connect-src', 'img-src']) assert.ok(blocked.directives.includes(directive), `${blocked.directives}`)
  assert.ok(!blocked.directives.some((directive) => directive.includes('let in')))
  // In a frame of somebody else's it is not shown.
  const response = await fetch(daemon.http('/'))
  assert.match(response.headers.get('content-security-policy'), /frame-ancestors 'none'/)
  assert.equal(response.headers.get('x-content-type-options'), 'nosniff')
  assert.equal(await text(page, 'sentence'), 'Not connected.')
  await daemon.stop()
})

await run()
