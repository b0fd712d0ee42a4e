import { versionTrouble } from '../model/index.ts';
import type { ApiServer } from './api-server.ts';

/**
 * Asks an API server for its version. Returns why that is outside of the supported range, or cannot be told, and what
 * to do; undefined if it is inside. Throws `cluster-unreachable`.
 */
export async function serverVersionTrouble(server: Pick<ApiServer, 'url' | 'request'>): Promise<string | undefined> {
  const { status, body } = await server.request('GET', '/version');
  const where = `the API server at \`${server.url}\``;
  if (status !== 200)
    return `${where} does not state its version (${status}): grant the service \`get\` on the path /version`;
  // Managed clusters write `34+`.
  return versionTrouble('Kubernetes', `${String(body['major'])}.${String(body['minor'])}`, where);
}
