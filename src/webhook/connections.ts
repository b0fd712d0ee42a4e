import type { IncomingMessage, Server as PlainServer, ServerResponse } from 'node:http';
import type { Server as TlsServer } from 'node:https';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';

/** How many connections a server holds, and how many one source may have that have asked nothing yet. */
export type ConnectionLimits = { readonly total: number; readonly silentPerSource: number };

/** For servers that anyone in the cluster may reach: an API server has some dozens of connections, and as many as it has requests. */
const CONNECTION_LIMITS: ConnectionLimits = { total: 1000, silentPerSource: 100 };

/** How far a connection has come; the least comes first when one has to go. */
type Stage = 'silent' | 'secured' | 'sending' | 'idle' | 'answering';

const SHED: readonly Stage[] = ['silent', 'secured', 'sending', 'idle']; // one that is being answered is never ended

type Connection = { readonly socket: Socket; readonly source: string; stage: Stage };

/**
 * Holds connections to a limit by ending the least useful one for each that comes: first those that have said nothing, oldest first;
 * then those that asked nothing since TLS was agreed on; those that are still sending a request; and those that were answered and
 * are idle. Whoever opens thousands of connections takes the place of his own, and never of a request that is being answered.
 * `maxConnections` of node:net would turn away the newcomer instead, which is the API server.
 */
export function guardConnections(server: PlainServer | TlsServer, limits: ConnectionLimits = CONNECTION_LIMITS): void {
  const connections = new Connections(limits);
  server.on('connection', (socket: Socket) => connections.take(socket));
  // Over TLS, requests come on another socket than the one that was accepted.
  server.on('secureConnection', (secured: TLSSocket) => connections.secured(secured));
  server.prependListener('request', (request: IncomingMessage, response: ServerResponse) => {
    connections.move(request.socket, 'sending');
    request.once('end', () => connections.move(request.socket, 'answering'));
    response.once('close', () => connections.move(request.socket, 'idle'));
  });
}

class Connections {
  readonly #limits: ConnectionLimits;
  readonly #stages: Readonly<Record<Stage, Set<Connection>>> = {
    silent: new Set(),
    secured: new Set(),
    sending: new Set(),
    idle: new Set(),
    answering: new Set(),
  };
  readonly #bySocket = new WeakMap<object, Connection>();
  readonly #byPeer = new Map<string, Connection>();
  readonly #silent = new Map<string, Set<Connection>>();
  #count = 0;

  constructor(limits: ConnectionLimits) {
    this.#limits = limits;
  }

  take(socket: Socket): void {
    // `secureConnection` gives no way back to this socket; both have the same peer.
    const connection: Connection = { socket, source: socket.remoteAddress ?? '', stage: 'silent' };
    this.#bySocket.set(socket, connection);
    this.#stages.silent.add(connection);
    this.#count++;
    const silent = this.#silent.get(connection.source) ?? new Set();
    this.#silent.set(connection.source, silent.add(connection));
    const peer = peerOf(socket);
    this.#byPeer.set(peer, connection);
    socket.once('close', () => {
      this.#count--;
      this.#stages[connection.stage].delete(connection);
      this.#heard(connection);
      if (this.#byPeer.get(peer) === connection) this.#byPeer.delete(peer);
    });
    const [oldest] = silent;
    if (silent.size > this.#limits.silentPerSource && oldest !== undefined) end(oldest);
    else if (this.#count > this.#limits.total) this.#shed();
  }

  secured(socket: TLSSocket): void {
    const connection = this.#byPeer.get(peerOf(socket));
    if (connection === undefined) return;
    this.#bySocket.set(socket, connection);
    this.#move(connection, 'secured');
  }

  move(socket: Socket, stage: Stage): void {
    const connection = this.#bySocket.get(socket);
    if (connection !== undefined && !connection.socket.destroyed) this.#move(connection, stage);
  }

  // To the end of its stage: in each, the one that came to it first is the first to go.
  #move(connection: Connection, stage: Stage): void {
    this.#stages[connection.stage].delete(connection);
    connection.stage = stage;
    this.#stages[stage].add(connection);
    this.#heard(connection);
  }

  #heard(connection: Connection): void {
    const silent = this.#silent.get(connection.source);
    silent?.delete(connection);
    if (silent?.size === 0) this.#silent.delete(connection.source);
  }

  #shed(): void {
    for (const stage of SHED)
      for (const connection of this.#stages[stage]) {
        if (connection.socket.destroyed) continue; // already ended, and its end is not told yet
        end(connection);
        return;
      }
  }
}

function end({ socket }: Connection): void {
  socket.destroy();
}

function peerOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress ?? ''} ${remotePort ?? ''}`;
}
