import { existsSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { findOnPath } from '../../src/tools/index.ts';

const TOOLS = fileURLToPath(new URL('../../.tools', import.meta.url));

/** Parts that some machines lack, with the command that installs each on Debian. */
const PARTS = {
  PostgreSQL: { isHere: () => postgresPrograms() !== undefined, install: 'apt-get install postgresql' },
  sshd: {
    isHere: () => findOnPath('sshd', '/usr/sbin:/usr/bin') !== undefined,
    install: 'apt-get install openssh-server',
  },
  'Java and Maven': { isHere: () => has('java') && has('mvn'), install: 'apt-get install default-jre-headless maven' },
  pdftotext: { isHere: () => has('pdftotext'), install: 'apt-get install poppler-utils' },
  'kube-apiserver 1.37': {
    isHere: () => has('kube-apiserver-1.37') || isBuilt('kube-apiserver-1.37-'),
    install: 'npm run tools',
  },
  Go: { isHere: () => has('go'), install: 'install it from https://go.dev' },
};

/**
 * Returns the reason to skip tests that need a part of the machine, or false if it is present. In CI a missing part is
 * an error.
 */
export function without(part: keyof typeof PARTS): string | false {
  const { isHere, install } = PARTS[part];
  if (isHere()) return false;
  const why = `${part} is not on this machine: ${install}`;
  if (process.env['CI'] === 'true' || process.env['COUNTERSIGN_TEST_ALL'] === 'true') throw new Error(why);
  return why;
}

/** Returns the reason to skip a slow test in `npm run test:unit`, which leaves it to `npm test`. */
export function inQuickRun(): string | false {
  return process.env['COUNTERSIGN_TEST_QUICK'] === 'true' ? 'left to `npm test`' : false;
}

const HOME = '/usr/lib/postgresql';

/** Returns the directory of PostgreSQL's programs on Debian, or undefined if it is not installed. */
export function postgresPrograms(): string | undefined {
  const [newest] = existsSync(HOME) ? readdirSync(HOME).sort((a, b) => Number(b) - Number(a)) : [];
  return newest === undefined ? undefined : `${HOME}/${newest}/bin`;
}

function isBuilt(start: string): boolean {
  return existsSync(TOOLS) && readdirSync(TOOLS).some((file) => file.startsWith(start));
}

function has(program: string): boolean {
  return findOnPath(program, process.env['PATH'] ?? '') !== undefined;
}
