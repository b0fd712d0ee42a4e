import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Fleet, type Person, run } from './fleet.ts';

/** The bytes of an object as Git has them. */
export function rawObject(fleet: Fleet, id: string, type = 'commit'): Buffer {
  return execFileSync('git', ['cat-file', type, id], { cwd: fleet.work, stdio: ['ignore', 'pipe', 'pipe'] });
}

/**
 * Writes any bytes as an object, into the working copy and the bare repository; Git is not asked whether they make
 * sense.
 */
export function writeObject(fleet: Fleet, bytes: Buffer, type = 'commit'): string {
  const write = (cwd: string) =>
    run('git', ['hash-object', '-t', type, '-w', '--stdin', '--literally'], { cwd, input: bytes });
  write(fleet.work);
  return write(fleet.bare);
}

/** A changed copy of a commit, as an attacker would write it. */
export function forge(fleet: Fleet, commit: string, change: (raw: string) => string): string {
  const raw = rawObject(fleet, commit).toString('latin1');
  const altered = change(raw);
  if (altered === raw) throw new Error('the attack changed nothing');
  return writeObject(fleet, Buffer.from(altered, 'latin1'));
}

/** A detached armored signature over bytes, by `ssh-keygen` or `gpg` themselves. */
export function signBytes(
  person: Person,
  bytes: Buffer,
  options: { namespace?: string; gpg?: readonly string[]; ssh?: readonly string[] } = {},
): string {
  const file = join(tmpdir(), `countersign-sign-${process.pid}-${Math.random().toString(36).slice(2)}`);
  writeFileSync(file, bytes);
  try {
    if (person.format === 'ssh') {
      run('ssh-keygen', [
        '-q',
        '-Y',
        'sign',
        '-n',
        options.namespace ?? 'git',
        ...(options.ssh ?? []),
        '-f',
        person.signingKey,
        file,
      ]);
      return readFileSync(`${file}.sig`, 'utf8').trim();
    }
    const args = [
      '--batch',
      '--armor',
      '--detach-sign',
      '--local-user',
      person.signingKey,
      ...(options.gpg ?? []),
      '--output',
      `${file}.sig`,
      file,
    ];
    run('gpg', args, { env: { GNUPGHOME: person.gnupgHome ?? '' } });
    return readFileSync(`${file}.sig`, 'utf8').trim();
  } finally {
    rmSync(file, { force: true });
    rmSync(`${file}.sig`, { force: true });
  }
}

/** A commit from its payload: the header with a signature put in where Git puts it. */
export function signedCommit(
  fleet: Fleet,
  payload: string,
  sign: (payload: Buffer) => string,
  header = 'gpgsig',
): string {
  const bytes = Buffer.from(payload, 'latin1');
  const [head, ...body] = payload.split('\n\n');
  const signature = `${header} ${sign(bytes).replaceAll('\n', '\n ')}\n`;
  return writeObject(fleet, Buffer.from(`${head}\n${signature}\n${body.join('\n\n')}`, 'latin1'));
}

/** The payload of an ordinary commit on top of others; `time` in seconds since 1970. */
export function payloadOf(
  tree: string,
  parents: readonly string[],
  person: Person,
  time: number,
  message = 'made by hand\n',
): string {
  const who = `${person.name} <${person.email}> ${time} +0000`;
  return `tree ${tree}\n${parents.map((p) => `parent ${p}\n`).join('')}author ${who}\ncommitter ${who}\n\n${message}`;
}

/** The bytes inside of an armored OpenPGP signature. */
export function packetBytes(armored: string): Buffer {
  const [, body = ''] = armored.split('\n\n');
  return Buffer.from(body.replace(/\n=[^\n]*\n-----END[\s\S]*$/, '').replaceAll('\n', ''), 'base64');
}
