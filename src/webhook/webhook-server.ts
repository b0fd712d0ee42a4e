import { createServer, type Server } from 'node:https';
import type { SecureContextOptions } from 'node:tls';
import type { Express } from 'express';
import type { Identity } from './certificate-keeper.ts';
import { type ConnectionLimits, guardConnections } from './connections.ts';

const HANDSHAKE_MS = 5000; // Node's default is two minutes, during which a silent connection would hold its place

/** Creates an HTTPS server with TLS 1.3, which does not listen yet. */
export function webhookServer(app: Express, identity: Identity, limits?: ConnectionLimits): Server {
  const server = createServer(
    {
      ...contextOf(identity),
      ...(identity.clientCa === undefined ? {} : { requestCert: true, rejectUnauthorized: true }),
      handshakeTimeout: HANDSHAKE_MS,
      headersTimeout: 5000,
      requestTimeout: 10_000, // an API server is never this slow
      connectionsCheckingInterval: 2000,
      // longer than the API server keeps an idle connection: the API server must be the one to close it
      keepAliveTimeout: 120_000,
    },
    app,
  );
  guardConnections(server, limits);
  return server;
}

/** Serves a different certificate for new connections. Throws if certificate and key do not match. */
export function showIdentity(server: Server, identity: Identity): void {
  server.setSecureContext(contextOf(identity));
}

function contextOf({ cert, key, clientCa }: Identity): SecureContextOptions {
  return { cert, key, minVersion: 'TLSv1.3', ...(clientCa === undefined ? {} : { ca: clientCa }) };
}
