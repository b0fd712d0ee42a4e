import { connect, type Socket } from 'node:net';
import { setTimeout as wait } from 'node:timers/promises';
import { connect as connectTls, type TLSSocket } from 'node:tls';

// Opens connections to a port of this machine, in waves, from twenty addresses: one in three says nothing, one agrees
// on TLS and asks nothing, and one sends the header of a request by one byte a second. `PORT COUNT WAVE EVERY_MS`;
// writes what became of them.
const [port, count, wave, everyMs] = process.argv.slice(2).map(Number) as [number, number, number, number];
const HELD_MS = 15_000;
const LATE_MS = 30_000;
const HEADER = `POST /validate HTTP/1.1\r\nhost: 127.0.0.1\r\nx-a: ${'a'.repeat(1000)}`;
const seen = { opened: 0, secured: 0, endedByService: 0 };

const ends: Promise<void>[] = [];
for (let i = 0; i < count; i++) {
  ends.push(one(i));
  if (i % wave === wave - 1) await wait(everyMs);
}
await Promise.all(ends);
process.stdout.write(JSON.stringify(seen));

async function one(i: number): Promise<void> {
  const options = { host: '127.0.0.1', port, localAddress: `127.0.1.${1 + (i % 20)}` };
  const kind = i % 3;
  const socket: Socket = kind === 0 ? connect(options) : connectTls({ ...options, rejectUnauthorized: false } as never);
  socket.on('error', () => {});
  socket.on('connect', () => seen.opened++);
  socket.resume();
  let timer: NodeJS.Timeout | undefined;
  if (kind !== 0) (socket as TLSSocket).once('secureConnect', () => seen.secured++);
  if (kind === 2)
    socket.once('secureConnect', () => {
      let sent = 0;
      timer = setInterval(() => socket.write(HEADER.slice(sent, ++sent)), 1000);
    });
  let isOurs = false;
  const own = setTimeout(() => {
    isOurs = true;
    socket.destroy();
  }, HELD_MS);
  await Promise.race([new Promise((ended) => socket.once('close', ended)), wait(LATE_MS)]);
  clearTimeout(own);
  clearInterval(timer);
  if (!isOurs) seen.endedByService++;
}
