import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { CountersignError } from '../model/index.ts';
import { runGit } from './run-git.ts';
import type { UserRepository } from './user-repository.ts';

/** The armored signature, and the id by which Git knows the key. */
export type MadeSignature = { readonly armored: string; readonly keyId: string };

/**
 * Signs bytes with the key the person already signs commits with (`gpg.format`, `user.signingkey`). It runs `ssh-keygen
 * -Y sign` or `gpg`, so ssh-agent and hardware keys work. `keyFile` overrides the SSH key. Throws `signing-failed` with
 * the program's own error.
 */
export async function signWithGitKey(
  repository: UserRepository,
  bytes: Uint8Array,
  keyFile?: string,
): Promise<MadeSignature> {
  const format = keyFile === undefined ? ((await repository.config('gpg.format')) ?? 'openpgp') : 'ssh';
  const key = keyFile ?? (await repository.config('user.signingkey'));
  if (format === 'ssh') return signSsh(bytes, key, (await repository.config('gpg.ssh.program')) ?? 'ssh-keygen');
  if (format === 'openpgp')
    return signOpenPgp(
      bytes,
      key ?? (await repository.config('user.email')),
      (await repository.config('gpg.program')) ?? 'gpg',
    );
  throw new CountersignError(
    'signing-failed',
    `git is configured to sign with \`${format}\`, which approvals do not support`,
    {
      hint: 'set `gpg.format` to `ssh` or `openpgp`, or use --key',
    },
  );
}

async function signSsh(bytes: Uint8Array, key: string | undefined, program: string): Promise<MadeSignature> {
  if (key === undefined)
    throw new CountersignError('key-missing', 'there is no key to sign with', {
      hint: 'set `git config user.signingkey ~/.ssh/id_ed25519.pub`, or use --key FILE',
    });
  const directory = await mkdtemp(join(tmpdir(), 'countersign-'));
  try {
    const data = join(directory, 'approval');
    await writeFile(data, bytes);
    let file = key.replace(/^~\//, `${homedir()}/`);
    if (/^(key::|ssh-|ecdsa-|sk-)/.test(key)) {
      file = join(directory, 'key.pub'); // a literal public key: ssh-keygen gets the private half from ssh-agent
      await writeFile(file, `${key.replace(/^key::/, '')}\n`);
    }
    const result = await runGit(program, ['-Y', 'sign', '-n', 'git', '-f', file, data]);
    if (result.code !== 0)
      throw new CountersignError(
        'signing-failed',
        `ssh-keygen could not sign with \`${file}\`: ${lastLine(result.stderr)}`,
        {
          hint: 'check that the key is loaded in ssh-agent, and readable',
        },
      );
    return { armored: await readFile(`${data}.sig`, 'utf8'), keyId: file };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function signOpenPgp(bytes: Uint8Array, key: string | undefined, program: string): Promise<MadeSignature> {
  const result = await runGit(
    program,
    ['--batch', '--armor', '--detach-sign', '--output', '-', ...(key === undefined ? [] : ['--local-user', key])],
    { input: bytes },
  );
  if (result.code !== 0)
    throw new CountersignError('signing-failed', `gpg could not sign: ${lastLine(result.stderr)}`, {
      hint: 'check that your keyring has the secret key of `user.signingkey`',
    });
  return { armored: result.stdout.toString('utf8'), keyId: key ?? '' };
}

function lastLine(text: string): string {
  return text.split('\n').at(-1) ?? '';
}
