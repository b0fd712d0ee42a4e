import { createServer, type Server } from 'node:https';
import type { SecureContextOptions } from 'node:tls';
import type { Express } from 'express';
import type { Identity } from './certificate-keeper.ts';
import { type ConnectionLimits, guardConnections } from './connections.ts';

const HANDSHAKE_MS = 5000; // Node's own limit is two minutes, for which a silent connection would hold its place

/** An HTTPS server by TLS 1.3, which does not listen yet. */
export function webhookServer(app: Express, identity: Identity, limits?: ConnectionLimits): Server {
  const server = createServer(
    {
      ...contextOf(identity),
      ...(identity.clientCa === undefined ? {} : { requestCert: true, rejectUnauthorized: true }),
      handshakeTimeout: HANDSHAKE_MS,
      headersTimeout: 5000,
      requestTimeout: 10_000, // what is sent more slowly is no API server
      connectionsCheckingInterval: 2000,
      // longer than the API server keeps a connection that is idle: it must be the one that ends it
      keepAliveTimeout: 120_000,
    },
    app,
  );
  guardConnections(server, limits);
  return server;
}

/** Shows another certificate to whoever connects from now on. Throws where certificate and key do not fit together. */
export function showIdentity(server: Server, identity: Identity): void {
  server.setSecureContext(contextOf(identity));
}

function contextOf({ cert, key, clientCa }: Identity): SecureContextOptions {
  return { cert, key, minVersion: 'TLSv1.3', ...(clientCa === undefined ? {} : { ca: clientCa }) };
}
