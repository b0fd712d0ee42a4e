import { createHash } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

const sha = (b: Uint8Array) => `sha256:${createHash('sha256').update(b).digest('hex')}`;

/**
 * A registry with the layout of OCI distribution 1.1, tokens included (`u:p` has one), that holds one archive; and the
 * same archive as a file at `/charts/archive.tgz`. `reference` is `HOST/NAME@sha256:…`.
 */
export async function startRegistry(
  name: string,
  archive: Uint8Array,
  mediaType = 'application/vnd.oci.image.layer.v1.tar+gzip',
  change: (body: Buffer, path: string) => Buffer = (b) => b,
): Promise<{ reference: string; digest: string; asked: string[]; server: Server }> {
  const layer = sha(archive);
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      config: { digest: sha(Buffer.from('{}')), size: 2, mediaType: 'application/vnd.oci.empty.v1+json' },
      layers: [{ mediaType, digest: layer, size: archive.length }],
    }),
  );
  const asked: string[] = [];
  const server = createServer((request, response) => {
    const path = request.url ?? '';
    asked.push(`${path} ${request.headers.authorization ?? '-'}`);
    if (path === '/charts/archive.tgz') return response.end(change(Buffer.from(archive), 'file'));
    if (path.startsWith('/token'))
      return response.end(
        JSON.stringify({
          token: request.headers.authorization === `Basic ${Buffer.from('u:p').toString('base64')}` ? 'good' : 'bad',
        }),
      );
    if (request.headers.authorization !== 'Bearer good')
      return response
        .writeHead(401, {
          'www-authenticate': `Bearer realm="http://127.0.0.1:${(server.address() as AddressInfo).port}/token",service="r",scope="repository:${name}:pull"`,
        })
        .end();
    if (path === `/v2/${name}/manifests/${sha(manifest)}`) return response.end(change(manifest, 'manifest'));
    if (path === `/v2/${name}/blobs/${layer}`) return response.end(change(Buffer.from(archive), 'blob'));
    return response.writeHead(404).end();
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  return {
    reference: `127.0.0.1:${(server.address() as AddressInfo).port}/${name}@${sha(manifest)}`,
    digest: sha(manifest),
    asked,
    server,
  };
}
