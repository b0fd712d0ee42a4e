import { HostileServer, HTTP_MANNERS } from '../../test/kit/hostile-server.ts';

// Servers with every manner of test/kit/hostile-server.ts, in a process of their own: some write as fast as they can.
// `COUNT`; writes their addresses, and how often each was asked when standard input ends.
const manners = Object.values(HTTP_MANNERS);
const servers = await Promise.all(
  Array.from({ length: Number(process.argv[2]) }, async (_, i) => {
    const server = await HostileServer.start();
    const manner = manners[i % manners.length];
    if (manner !== undefined) server.manner = manner;
    return server;
  }),
);
process.stdout.write(`${JSON.stringify(servers.map((s) => s.url))}\n`);
process.stdin.resume().on('end', () => {
  process.stdout.write(JSON.stringify(servers.map((s) => s.connections)));
  for (const server of servers) server.stop();
});
