import { existsSync, readdirSync } from 'node:fs';
import { findOnPath } from '../../src/tools/index.ts';

/** Parts of a machine that not every one has, and how they are installed on Debian. */
const PARTS = {
  PostgreSQL: { isHere: () => postgresPrograms() !== undefined, install: 'apt-get install postgresql' },
  sshd: {
    isHere: () => findOnPath('sshd', '/usr/sbin:/usr/bin') !== undefined,
    install: 'apt-get install openssh-server',
  },
  'Java and Maven': { isHere: () => has('java') && has('mvn'), install: 'apt-get install default-jre-headless maven' },
  pdftotext: { isHere: () => has('pdftotext'), install: 'apt-get install poppler-utils' },
  Go: { isHere: () => has('go'), install: 'install it from https://go.dev' },
};

/**
 * For `skip` of what needs a part of the machine: false where it is here, and otherwise why the tests are left out.
 * In CI, nothing is left out: the file fails instead.
 */
export function without(part: keyof typeof PARTS): string | false {
  const { isHere, install } = PARTS[part];
  if (isHere()) return false;
  const why = `${part} is not on this machine: ${install}`;
  if (process.env['CI'] === 'true' || process.env['COUNTERSIGN_TEST_ALL'] === 'true') throw new Error(why);
  return why;
}

/** For `skip` of what takes long by its nature: `npm run test:unit` leaves it to `npm test`. */
export function inQuickRun(): string | false {
  return process.env['COUNTERSIGN_TEST_QUICK'] === 'true' ? 'left to `npm test`' : false;
}

const HOME = '/usr/lib/postgresql';

/** Where Debian puts PostgreSQL's programs; undefined where it is not installed. */
export function postgresPrograms(): string | undefined {
  const [newest] = existsSync(HOME) ? readdirSync(HOME).sort((a, b) => Number(b) - Number(a)) : [];
  return newest === undefined ? undefined : `${HOME}/${newest}/bin`;
}

function has(program: string): boolean {
  return findOnPath(program, process.env['PATH'] ?? '') !== undefined;
}
