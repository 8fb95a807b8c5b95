// k6: clients that count, leave without a word, and resume (https://grafana.com/docs/k6/).
//
//     k6 run tests/stress/k6.js                                        against port 8000
//     k6 run -e VUS=2000 -e SECONDS=60 -e PAUSE_MS=100 tests/stress/k6.js
//     k6 run -e URL=ws://127.0.0.1:9000/ws/chat/ -e P99_MS=50 tests/stress/k6.js
//
// Each virtual user has a session of its own. It sends a message every PAUSE_MS, wants the next
// count in reply, and hangs up in the middle after ROUND_MS; its next connection must find the
// session where it was. The thresholds below decide k6's exit code: 99 if one is crossed.
// `reply_ms` is a figure unless P99_MS makes it a threshold.
import ws from 'k6/ws';
import { check } from 'k6';
import { Counter, Trend } from 'k6/metrics';

const setting = (name, otherwise) => Number(__ENV[name] || otherwise);
const URL = __ENV.URL || 'ws://127.0.0.1:8000/ws/chat/';
const PAUSE_MS = setting('PAUSE_MS', 200);
const ROUND_MS = setting('ROUND_MS', 3000);

const reply = new Trend('reply_ms', true);
const counted = new Counter('counted');
const resumed = new Counter('resumed');

export const options = {
  scenarios: {
    counting: {
      executor: 'constant-vus',
      vus: setting('VUS', 200),
      duration: `${setting('SECONDS', 20)}s`,
      gracefulStop: '20s',
    },
  },
  thresholds: Object.assign(
    {
      // Not one wrong count, lost session, refused upgrade or unexpected close.
      checks: ['rate==1'],
      counted: ['count>0'],
      resumed: ['count>0'],
    },
    __ENV.P99_MS ? { reply_ms: [`p(99)<${__ENV.P99_MS}`] } : {},
  ),
};

// One VU is one JavaScript world: this is the state of its session.
let last = 0;
let unsure = 0;

// Names that no earlier run has used: its sessions are still there.
export function setup() {
  return Date.now().toString(36);
}

export default function (run) {
  const url = `${URL}?session_id=k6-${run}-${__VU}`;
  const [least, most] = [last, last + unsure];
  const response = ws.connect(url, {}, (socket) => {
    let sent = 0;
    let isLeaving = false;
    const say = () => {
      sent = Date.now();
      unsure += 1;
      socket.send('one more');
    };
    socket.on('message', (text) => {
      const told = JSON.parse(text);
      if (told.count === undefined) {
        return; // a heartbeat
      }
      reply.add(Date.now() - sent);
      counted.add(1);
      // The first reply of a connection tells whether the last message of the former one counted.
      const right = told.count === last + 1 || (told.count > last && told.count <= last + unsure);
      check(told, { 'the next count': () => right });
      last = told.count;
      unsure = 0;
      socket.setTimeout(say, PAUSE_MS);
    });
    socket.on('close', (code) => check(code, { 'nobody hung up on us': () => isLeaving }));
    socket.on('open', say);
    socket.setTimeout(() => {
      isLeaving = true;
      socket.close();
    }, ROUND_MS);
  });
  check(response, { 'status 101': (r) => r && r.status === 101 });
  if (response && response.headers['X-Session-Resumed'] === 'true') {
    resumed.add(1);
    const told = Number(response.headers['X-Session-Count']);
    check(told, { 'resumed where it was': (count) => least <= count && count <= most });
  }
}
