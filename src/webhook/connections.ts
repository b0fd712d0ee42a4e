import type { IncomingMessage, Server as PlainServer, ServerResponse } from 'node:http';
import type { Server as TlsServer } from 'node:https';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';

/** Limits on connections in total and per source, and on the time of one answer (milliseconds). */
export type ConnectionLimits = { readonly total: number; readonly perSource: number; readonly answerMs: number };

/**
 * For servers that anyone in the cluster can reach: an API server has some dozens of connections, at most one per
 * request.
 */
const CONNECTION_LIMITS: ConnectionLimits = { total: 1000, perSource: 500, answerMs: 15_000 };

/** State of a connection. */
type Stage = 'silent' | 'secured' | 'sending' | 'idle' | 'answering';

// connections that were never answered, or have a new request
const UNPROVEN: readonly Stage[] = ['silent', 'secured', 'sending'];
const ROOM = 0.25; // share of the total for those: a newcomer needs time for TLS and its request
const LOOK_MS = 2000;

type Connection = { readonly socket: Socket; readonly source: Source; stage: Stage; since: number; open: number };

/** A source of connections, with those that may be ended, by stage, in order of arrival there. */
type Source = { readonly address: string; readonly stages: Readonly<Record<Stage, Set<Connection>>>; count: number };

/**
 * Limits connections by ending an old one for each new one. If more than a quarter wait for an answer, one of those
 * ends, otherwise one that was answered and is idle. It is the oldest of the source with the most such connections. So
 * a client that opens many only displaces its own connections, and the newcomer, which may be the API server,
 * always stays.
 *
 * A request being answered is left alone for the maximum answer time. A request sent before the last was answered ends
 * its connection, and so does a client that does not read. `maxConnections` of node:net would reject the newcomer
 * instead.
 */
export function guardConnections(server: PlainServer | TlsServer, limits: ConnectionLimits = CONNECTION_LIMITS): void {
  const connections = new Connections(limits);
  // nothing read and nothing written; only `keepAliveTimeout`, between requests, is longer
  server.timeout = limits.answerMs;
  server.on('connection', (socket: Socket) => connections.take(socket));
  // With TLS, requests arrive on a different socket than the accepted one.
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
    // `secureConnection` does not give the accepted socket; both have the same peer.
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

  /** Ends connections whose answer takes longer than the limit: their client does not read. */
  endLate(): void {
    const latest = performance.now() - this.#limits.answerMs;
    for (const { stages } of this.#sources.values())
      for (const connection of stages.answering) {
        if (connection.since > latest) break;
        end(connection);
      }
  }

  // Appended to its stage: in each stage, the earliest arrival goes first.
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
      this.#forget(connection); // right away: its end event comes later, and the next newcomer must not count it
      end(connection);
      return;
    }
    end(newcomer); // all others are being answered
  }
}

// Among sources with equally many, the latest: an API server was there before.
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
