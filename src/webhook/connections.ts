import type { IncomingMessage, Server as PlainServer, ServerResponse } from 'node:http';
import type { Server as TlsServer } from 'node:https';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';

/**
 * How many connections a server holds, how many of them one source may have, and how long one answer may take
 * (milliseconds).
 */
export type ConnectionLimits = { readonly total: number; readonly perSource: number; readonly answerMs: number };

/**
 * For servers that anyone in the cluster may reach: an API server has some dozens of connections, and as many as it has
 * requests.
 */
const CONNECTION_LIMITS: ConnectionLimits = { total: 1000, perSource: 500, answerMs: 15_000 };

/** How far a connection has come. */
type Stage = 'silent' | 'secured' | 'sending' | 'idle' | 'answering';

const UNPROVEN: readonly Stage[] = ['silent', 'secured', 'sending']; // that were never answered, or ask again
const ROOM = 0.25; // of the total, for those: a newcomer needs time for TLS and its request
const LOOK_MS = 2000;

type Connection = { readonly socket: Socket; readonly source: Source; stage: Stage; since: number; open: number };

/** Where connections come from: those that may be ended, by stage, each in the order in which they came to it. */
type Source = { readonly address: string; readonly stages: Readonly<Record<Stage, Set<Connection>>>; count: number };

/**
 * Holds connections to a limit by ending another one for each that comes. While more than a quarter wait to be
 * answered, one of those goes, otherwise one that was answered and is idle; of the source that has most of them, the
 * oldest. So whoever opens many takes the place of his own, whatever they say, and the newcomer, which may be the API
 * server, is never the one that goes. A request that is being answered is left alone for as long as an answer may take;
 * one that is sent before the last was answered ends its connection, as does a client that does not read.
 * `maxConnections` of node:net would turn the newcomer away instead.
 */
export function guardConnections(server: PlainServer | TlsServer, limits: ConnectionLimits = CONNECTION_LIMITS): void {
  const connections = new Connections(limits);
  // nothing read and nothing written: only `keepAliveTimeout` is longer, between requests
  server.timeout = limits.answerMs;
  server.on('connection', (socket: Socket) => connections.take(socket));
  // Over TLS, requests come on another socket than the one that was accepted.
  server.on('secureConnection', (secured: TLSSocket) => connections.secured(secured));
  server.prependListener('request', (request: IncomingMessage, response: ServerResponse) => {
    connections.begin(request.socket);
    request.once('end', () => connections.answering(request.socket));
    response.once('close', () => connections.finish(request.socket));
  });
  const timer = setInterval(() => connections.endLate(), Math.min(LOOK_MS, limits.answerMs)).unref();
  server.once('close', () => clearInterval(timer));
}

class Connections {
  readonly #limits: ConnectionLimits;
  readonly #sources = new Map<string, Source>();
  readonly #bySocket = new WeakMap<object, Connection>();
  readonly #byPeer = new Map<string, Connection>();
  #count = 0;

  constructor(limits: ConnectionLimits) {
    this.#limits = limits;
  }

  take(socket: Socket): void {
    const address = socket.remoteAddress ?? '';
    const source = this.#sources.get(address) ?? newSource(address);
    this.#sources.set(address, source);
    const connection: Connection = { socket, source, stage: 'silent', since: performance.now(), open: 0 };
    this.#bySocket.set(socket, connection);
    // `secureConnection` gives no way back to this socket; both have the same peer.
    const peer = peerOf(socket);
    this.#byPeer.set(peer, connection);
    source.stages.silent.add(connection);
    source.count++;
    this.#count++;
    socket.once('close', () => {
      if (this.#byPeer.get(peer) === connection) this.#byPeer.delete(peer);
      this.#forget(connection);
    });
    if (source.count > this.#limits.perSource) this.#shed([source], this.#limits.perSource, connection);
    else if (this.#count > this.#limits.total) this.#shed([...this.#sources.values()], this.#limits.total, connection);
  }

  secured(socket: TLSSocket): void {
    const connection = this.#byPeer.get(peerOf(socket));
    if (connection === undefined) return;
    this.#bySocket.set(socket, connection);
    this.#move(connection, 'secured');
  }

  begin(socket: Socket): void {
    const connection = this.#bySocket.get(socket);
    if (connection === undefined) return;
    if (connection.open++ > 0)
      end(connection); // no API server sends the next request before it has read the answer
    else this.#move(connection, 'sending');
  }

  answering(socket: Socket): void {
    const connection = this.#bySocket.get(socket);
    // a body can end after its answer
    if (connection !== undefined && connection.open > 0) this.#move(connection, 'answering');
  }

  finish(socket: Socket): void {
    const connection = this.#bySocket.get(socket);
    if (connection !== undefined && --connection.open === 0) this.#move(connection, 'idle');
  }

  /** Ends what has been answered for longer than any answer takes: its client does not read. */
  endLate(): void {
    const latest = performance.now() - this.#limits.answerMs;
    for (const { stages } of this.#sources.values())
      for (const connection of stages.answering) {
        if (connection.since > latest) break;
        end(connection);
      }
  }

  // To the end of its stage: in each, the one that came to it first is the first to go.
  #move(connection: Connection, stage: Stage): void {
    const { stages } = connection.source;
    if (!stages[connection.stage].delete(connection)) return; // it has ended
    connection.stage = stage;
    connection.since = performance.now();
    stages[stage].add(connection);
  }

  #forget(connection: Connection): void {
    const { source } = connection;
    if (!source.stages[connection.stage].delete(connection)) return;
    this.#count--;
    if (--source.count === 0) this.#sources.delete(source.address);
  }

  #shed(sources: readonly Source[], limit: number, newcomer: Connection): void {
    const unproven = sources.reduce((sum, source) => sum + countOf(source, UNPROVEN), 0);
    const first: readonly Stage[] = unproven > limit * ROOM ? UNPROVEN : ['idle'];
    for (const stages of [first, UNPROVEN, ['idle'] as const]) {
      const connection = oldestOfMost(sources, stages, newcomer);
      if (connection === undefined) continue;
      this.#forget(connection); // at once: its end is told later, and the next newcomer must not count it
      end(connection);
      return;
    }
    end(newcomer); // all others are being answered
  }
}

// Of sources that have as many, the one that came last: an API server was there before.
function oldestOfMost(
  sources: readonly Source[],
  stages: readonly Stage[],
  newcomer: Connection,
): Connection | undefined {
  const others = (source: Source) =>
    countOf(source, stages) - (source === newcomer.source && stages.includes(newcomer.stage) ? 1 : 0);
  let most: Source | undefined;
  for (const source of sources) if (most === undefined || others(source) >= others(most)) most = source;
  let oldest: Connection | undefined;
  for (const stage of stages)
    for (const connection of most?.stages[stage] ?? []) {
      if (connection === newcomer) continue;
      if (oldest === undefined || connection.since < oldest.since) oldest = connection;
      break;
    }
  return oldest;
}

function countOf({ stages }: Source, of: readonly Stage[]): number {
  return of.reduce((sum, stage) => sum + stages[stage].size, 0);
}

function newSource(address: string): Source {
  return {
    address,
    count: 0,
    stages: { silent: new Set(), secured: new Set(), sending: new Set(), idle: new Set(), answering: new Set() },
  };
}

function end({ socket }: Connection): void {
  socket.destroy();
}

function peerOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress ?? ''} ${remotePort ?? ''}`;
}
