// The browser: Debian's Chromium, driven by Playwright, looking at the live page of a daemon.
//
// The manner of tests/foreign/harness.mjs, whose daemon, cases and runner these are: each file says
// `test(name, body)` and ends with `await run()`. Every page opened here is watched: what it writes to
// the console as an error, what its policy blocks and what it asks of anybody but its server fails
// the case.
//
// Starts browsers, daemons and crowds, and ends what it started. Screenshots go to target/page/.
// Called by the other *.mjs of this directory; tests/run calls those.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { pause, test as plain } from '../foreign/harness.mjs'

export { Daemon, PATH, pause, run } from '../foreign/harness.mjs'

const root = new URL('../../', import.meta.url)
const installed = process.env.PAGE_NODE ?? fileURLToPath(new URL('target/page/node', root))
const { chromium } = createRequire(`${installed}/`)('playwright-core')
export const axe = createRequire(`${installed}/`)('axe-core')
const executablePath = process.env.PAGE_CHROMIUM ?? '/usr/bin/chromium'
const shots = dirname(installed)

// Descriptors that this process and those that it starts may have.
export const descriptors = Number(/^Max open files +(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))[1])

// Longest wait for anything on a page. Never how long it takes.
export const PATIENCE = 20_000

const ARGUMENTS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
]

// A case with a browser of its own, and a profile that is new and goes with it.
export function test(name, body, seconds = 120) {
  plain(name, async () => {
    const browser = await chromium.launch({ executablePath, args: ARGUMENTS })
    const crowds = []
    try {
      await body(new Visit(browser, crowds))
    } finally {
      for (const crowd of crowds) crowd.leave()
      await browser.close()
    }
  }, seconds)
}

class Visit {
  constructor(browser, crowds) {
    this.browser = browser
    this.crowds = crowds
  }

  // The page of a daemon. `expected` matches what the console may say all the same.
  async open(daemon, { expected, path = '/', ...options } = {}) {
    const context = await this.browser.newContext({ viewport: { width: 1440, height: 900 }, ...options })
    context.setDefaultTimeout(PATIENCE)
    context.complaints = []
    // Its own tabs too, those that it opens itself included.
    context.on('page', (page) => watch(page, daemon, context.complaints, expected))
    const page = await context.newPage()
    await page.goto(daemon.http(path))
    return page
  }

  // So many clients, some of them talking; back when all are open.
  async crowd(daemon, connections, messagesASecond = 0) {
    const script = fileURLToPath(new URL('crowd.mjs', import.meta.url))
    const process = spawn('node', [script, daemon.port, connections, messagesASecond].map(String), {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    const crowd = { leave: () => process.stdin.end() }
    this.crowds.push(crowd)
    const [said] = await once(process.stdout, 'data')
    assert.equal(String(said).trim(), 'open')
    return crowd
  }
}

function watch(page, daemon, complaints, expected) {
  const complain = (text) => expected?.test(text) || complaints.push(text)
  page.on('console', (message) => {
    if (message.type() !== 'log') complain(`${message.type()}: ${message.text()}`)
  })
  page.on('pageerror', (error) => complain(`error: ${error.stack}`))
  const isOurs = (url) => url.startsWith('data:') || new URL(url).host === new URL(daemon.http()).host
  page.on('request', (request) => isOurs(request.url()) || complain(`asked for ${request.url()}`))
  page.on('websocket', (socket) => isOurs(socket.url()) || complain(`connected to ${socket.url()}`))
}

// What was complained of, on any of the context's pages.
export function noComplaints(page) {
  assert.deepEqual(page.context().complaints, [])
}

// --- what a page shows ---

export const text = (page, id) => page.locator(`#${id}`).innerText()

// Waits until an element's text is this, or matches this.
export async function shows(page, id, expected) {
  const found = () => text(page, id)
  await until(`#${id} shows ${expected}`, async () => {
    const now = await found()
    return expected instanceof RegExp ? expected.test(now) : now === String(expected)
  }, found)
}

// Waits for what happens on its own; `found` tells what there was instead.
export async function until(what, holds, found = () => '') {
  const end = Date.now() + PATIENCE
  while (!(await holds())) {
    if (Date.now() > end) assert.fail(`never came: ${what}; instead: ${await found()}`)
    await pause(50)
  }
}

export const isOpen = (page) => page.waitForSelector('#state[data-state="open"]')

// Connects and waits until the session is there.
export async function connect(page) {
  await page.click('#connect')
  await isOpen(page)
}

// A figure of the totals, as a number: the large one, or that of the small line below it.
export function total(page, name, small = false) {
  return page.evaluate(([name, small]) => {
    const entry = [...document.querySelectorAll('#totals > div')].find((div) => div.querySelector('dt').innerText === name)
    const shown = entry?.querySelector(small ? 'small' : 'dd span').innerText ?? ''
    return Number.parseFloat(shown.replace(/[^\d.]/g, ''))
  }, [name, small])
}

// How many slots are of a kind.
export const slots = (page, kind) => page.evaluate((kind) => {
  const entry = document.querySelector(`#legend .${kind}`).parentElement
  return Number(entry.querySelector('b').innerText.replaceAll(',', ''))
}, kind)

export async function screenshot(page, name, options = {}) {
  await page.screenshot({ path: join(shots, `${name}.png`), ...options })
}
