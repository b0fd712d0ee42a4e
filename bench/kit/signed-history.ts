import { spawnSync } from 'node:child_process';
import { createHash, generateKeyPairSync, sign } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { deflateSync } from 'node:zlib';
import { createMessage, generateKey, readPrivateKey, sign as signOpenPgp } from 'openpgp';
import { field } from '../../src/trust/ssh-wire.ts';
import { sshsigArmor, sshsigMessage } from '../../test/kit/sshsig.ts';

/** Signs the payload of a commit; gives the armored signature. */
export type SignCommit = (payload: Buffer) => Promise<string> | string;

/**
 * An SSH ed25519 key whose signatures are made here: `ssh-keygen` makes some hundred a second, a history needs
 * thousands.
 */
export function sshSigner(): { line: string; sign: SignCommit } {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519');
  const raw = Buffer.from(String(publicKey.export({ format: 'jwk' }).x), 'base64url');
  const blob = Buffer.concat([field('ssh-ed25519'), field(raw)]);
  const signPayload = (payload: Buffer) => {
    const signature = sign(null, sshsigMessage(payload), privateKey);
    return sshsigArmor(blob, Buffer.concat([field('ssh-ed25519'), field(signature)]));
  };
  return { line: `ssh-ed25519 ${blob.toString('base64')}`, sign: signPayload };
}

/** An OpenPGP ed25519 key. */
export async function openPgpSigner(): Promise<{ publicKey: string; sign: SignCommit }> {
  const made = await generateKey({
    type: 'ecc',
    curve: 'ed25519Legacy',
    userIDs: [{ name: 'Dana', email: 'dana@example.test' }],
    date: new Date(Date.now() - 86_400_000),
  });
  const signingKeys = await readPrivateKey({ armoredKey: made.privateKey });
  return {
    publicKey: made.publicKey,
    sign: async (payload) =>
      (
        (await signOpenPgp({
          message: await createMessage({ binary: payload }),
          signingKeys,
          detached: true,
        })) as string
      )
        .replaceAll('\r\n', '\n')
        .trim(),
  };
}

/**
 * Writes a linear history of signed commits, each changing one of `files` files, as one pack into a bare repository.
 * Gives the ids, oldest first.
 */
export async function writeHistory(
  bare: string,
  commits: number,
  signCommit: SignCommit,
  files = 200,
): Promise<string[]> {
  const run = (...args: string[]) =>
    spawnSync('git', args, { cwd: bare, env: { ...process.env, GIT_CONFIG_GLOBAL: '/dev/null' } });
  spawnSync('git', ['init', '--quiet', '--bare', '--initial-branch=main', bare]);
  const pack = new Pack();
  const blobs = Array.from({ length: files }, (_, i) => pack.add('blob', Buffer.from(manifest(i, 0))));
  const started = Math.floor(Date.now() / 1000) - commits - 3600;
  const ids: string[] = [];
  for (let i = 0; i < commits; i++) {
    const changed = i % files;
    blobs[changed] = pack.add('blob', Buffer.from(manifest(changed, i + 1)));
    // Twenty directories of ten: a changed file rewrites its directory and the ones above it, as in a fleet repository.
    const tree = pack.add('tree', treeOf([['clusters', pack.add('tree', treeOf(directoriesOf(blobs, pack)))]]));
    const who = `Dana <dana@example.test> ${started + i} +0000`;
    const head = `tree ${tree}\n${i === 0 ? '' : `parent ${ids[i - 1] ?? ''}\n`}author ${who}\ncommitter ${who}\n`;
    const body = `\nchange ${i}\n`;
    const signature = await signCommit(Buffer.from(head + body));
    ids.push(pack.add('commit', Buffer.from(`${head}gpgsig ${signature.replaceAll('\n', '\n ')}\n${body}`)));
  }
  const file = join(bare, 'history.pack');
  writeFileSync(file, pack.end());
  run('index-pack', '-o', join(bare, 'objects', 'pack', 'pack-history.idx'), file);
  spawnSync('mv', [file, join(bare, 'objects', 'pack', 'pack-history.pack')]);
  run('update-ref', 'refs/heads/main', ids.at(-1) ?? '');
  return ids;
}

function manifest(file: number, version: number): string {
  return `apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: app-${file}\n  namespace: shop\ndata:\n  version: "${version}"\n`;
}

const known = new Map<number, { key: string; id: string }>();

function directoriesOf(blobs: readonly string[], pack: Pack): [string, string][] {
  const directories: [string, string][] = [];
  for (let d = 0; d * 10 < blobs.length; d++) {
    const own = blobs.slice(d * 10, d * 10 + 10);
    const key = own.join();
    const cached = known.get(d);
    const id = cached?.key === key ? cached.id : pack.add('tree', filesOf(own));
    known.set(d, { key, id });
    directories.push([`team-${String(d).padStart(2, '0')}`, id]);
  }
  return directories;
}

function filesOf(blobs: readonly string[]): Buffer {
  return Buffer.concat(blobs.flatMap((id, i) => [Buffer.from(`100644 app-${i}.yaml\0`), Buffer.from(id, 'hex')]));
}

function treeOf(directories: readonly (readonly [string, string])[]): Buffer {
  return Buffer.concat(directories.flatMap(([name, id]) => [Buffer.from(`40000 ${name}\0`), Buffer.from(id, 'hex')]));
}

// gitformat-pack: whole objects, no deltas.
class Pack {
  readonly #objects: Buffer[] = [];
  readonly #seen = new Set<string>();

  add(type: 'commit' | 'tree' | 'blob', content: Buffer): string {
    const id = createHash('sha1').update(`${type} ${content.length}\0`).update(content).digest('hex');
    if (this.#seen.has(id)) return id;
    this.#seen.add(id);
    this.#objects.push(
      Buffer.concat([
        header({ commit: 1, tree: 2, blob: 3 }[type], content.length),
        deflateSync(content, { level: 1 }),
      ]),
    );
    return id;
  }

  end(): Buffer {
    const start = Buffer.alloc(12);
    start.write('PACK');
    start.writeUInt32BE(2, 4);
    start.writeUInt32BE(this.#objects.length, 8);
    const body = Buffer.concat([start, ...this.#objects]);
    return Buffer.concat([body, createHash('sha1').update(body).digest()]);
  }
}

function header(type: number, size: number): Buffer {
  const bytes = [(type << 4) | (size & 15)];
  for (let rest = size >> 4; rest > 0; rest >>= 7) {
    bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) | 0x80;
    bytes.push(rest & 0x7f);
  }
  return Buffer.from(bytes);
}
