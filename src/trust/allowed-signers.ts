import { wildcardMatches } from '../model/index.ts';
import { parseSshKey, type SshKey } from './ssh-key.ts';
import { SshFormatError } from './ssh-wire.ts';

/** One line of an allowed_signers file (ssh-keygen(1), ALLOWED SIGNERS). Times in milliseconds since 1970. */
export type AllowedSigner = {
  readonly line: number;
  /** Comma-separated patterns with `*`, `?` and `!`. */
  readonly principals: string;
  readonly key: SshKey;
  /** The key is a certificate authority: it certifies keys and signs nothing itself. */
  readonly certAuthority: boolean;
  readonly namespaces: string | undefined;
  readonly validAfter: number | undefined;
  readonly validBefore: number | undefined;
  /** A time on the line has no `Z`, so OpenSSH reads it in the time zone of the machine. */
  readonly localTime: boolean;
};

const MAX_LINE = 64 * 1024;

/**
 * Reads an allowed_signers file. OpenSSH skips a line it cannot read. Here such a line is refused with its number,
 * because a key or an expiry date would be lost with it. Throws `SshFormatError`.
 */
export function parseAllowedSigners(text: string): AllowedSigner[] {
  const signers: AllowedSigner[] = [];
  for (const [i, raw] of text.split('\n').entries()) {
    const line = raw.replace(/\r$/, '').replace(/^[ \t]+/, '');
    if (line === '' || line.startsWith('#')) continue;
    try {
      if (line.length > MAX_LINE) throw new SshFormatError('it is too long');
      signers.push(parseLine(line, i + 1));
    } catch (thrown) {
      if (!(thrown instanceof SshFormatError)) throw thrown;
      throw new SshFormatError(`line ${i + 1}: ${thrown.message}`);
    }
  }
  return signers;
}

/**
 * Tests whether a name matches an OpenSSH pattern list: one pattern must match it, and no `!pattern` may
 * (ssh_config(5), PATTERNS).
 */
export function matchesPatternList(name: string, list: string): boolean {
  let matched = false;
  for (const entry of list.split(',')) {
    const negated = entry.startsWith('!');
    if (!wildcardMatches(negated ? entry.slice(1) : entry, name)) continue;
    if (negated) return false;
    matched = true;
  }
  return matched;
}

function parseLine(line: string, number: number): AllowedSigner {
  const [principals, rest] = firstWord(line);
  if (principals === '' || rest === '') throw new SshFormatError('it contains no key');
  const plain = readKey(rest);
  const [optionText, keyText] = plain === undefined ? splitOptions(rest) : ['', rest];
  const key = plain ?? parseSshKey(keyText);
  const options = readOptions(optionText);
  const [after, before] = [options.get('valid-after'), options.get('valid-before')].map((t) =>
    t === undefined ? undefined : readTime(t),
  );
  if (after !== undefined && before !== undefined && before.time <= after.time)
    throw new SshFormatError('it ends before it begins');
  return {
    line: number,
    principals,
    key,
    certAuthority: options.has('cert-authority'),
    namespaces: options.get('namespaces'),
    validAfter: after?.time,
    validBefore: before?.time,
    localTime: after?.local === true || before?.local === true,
  };
}

// The principals may be quoted and contain spaces.
function firstWord(line: string): [string, string] {
  const quoted = /^"([^"]*)"[ \t]+(.*)$/.exec(line);
  if (quoted !== null) return [quoted[1] ?? '', quoted[2] ?? ''];
  const plain = /^(\S+)[ \t]+(.*)$/.exec(line);
  return [plain?.[1] ?? '', plain?.[2] ?? ''];
}

function readKey(text: string): SshKey | undefined {
  if (!/^(ssh-|ecdsa-|sk-)/.test(text)) return undefined;
  return parseSshKey(text);
}

// Options end at the first blank outside quotes.
function splitOptions(text: string): [string, string] {
  let quoted = false;
  for (let i = 0; i < text.length; i++) {
    if (text[i] === '"' && text[i - 1] !== '\\') quoted = !quoted;
    if (!quoted && (text[i] === ' ' || text[i] === '\t')) return [text.slice(0, i), text.slice(i).trim()];
  }
  throw new SshFormatError(quoted ? 'a quotation mark is not closed' : 'it contains no key');
}

function readOptions(text: string): Map<string, string> {
  const options = new Map<string, string>();
  let rest = text;
  while (rest !== '') {
    const match = /^([a-z-]+)(?:="((?:[^"\\]|\\.)*)")?(?:,|$)/i.exec(rest);
    if (match === null) throw new SshFormatError(`the options \`${rest.slice(0, 40)}\` are invalid`);
    const name = (match[1] ?? '').toLowerCase();
    const flag = name === 'cert-authority';
    if (!flag && !['namespaces', 'valid-after', 'valid-before'].includes(name))
      throw new SshFormatError(`\`${name}\` is not an option`);
    if (flag !== (match[2] === undefined))
      throw new SshFormatError(`the option \`${name}\` ${flag ? 'takes no value' : 'needs a value in quotes'}`);
    if (options.has(name)) throw new SshFormatError(`the option \`${name}\` appears twice`);
    options.set(name, (match[2] ?? '').replaceAll('\\"', '"'));
    rest = rest.slice(match[0].length);
  }
  return options;
}

// YYYYMMDD[HHMM[SS]][Z]; local time without Z, as in OpenSSH.
function readTime(text: string): { time: number; local: boolean } {
  const match = /^(\d{4})(\d{2})(\d{2})(?:(\d{2})(\d{2})(\d{2})?)?(Z?)$/.exec(text);
  if (match === null) throw new SshFormatError(`\`${text.slice(0, 40)}\` is not a time such as 20260131Z`);
  const [year, month, day, hour, minute, second] = match.slice(1, 7).map((n) => Number(n ?? 0)) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const utc = match[7] === 'Z';
  const date = utc
    ? new Date(Date.UTC(year, month - 1, day, hour, minute, second))
    : new Date(year, month - 1, day, hour, minute, second);
  if (
    (utc ? date.getUTCDate() : date.getDate()) !== day ||
    month < 1 ||
    month > 12 ||
    hour > 23 ||
    minute > 59 ||
    second > 59
  )
    throw new SshFormatError(`\`${text}\` is not a valid date and time`);
  return { time: date.getTime(), local: !utc };
}
