import type { ProcessSettings } from '../config/index.ts';
import { assess } from '../gate/index.ts';
import { sourceRepository } from '../git/index.ts';
import { CountersignError, type Environment, isObjectId, NO_REVISION } from '../model/index.ts';
import { gitProgram, openCheckout, openConfiguration, openGate, openRendering } from '../open/index.ts';
import { EXIT, type Io, paint, plain } from '../terminal/index.ts';
import type { PreReceiveOptions } from './check-commands.ts';
import { showFindings, showVerdictEnd, showVerdictHead } from './show-verdict.ts';

type Update = { readonly from: string; readonly to: string; readonly ref: string };

const MAX_LINES = 1024 * 1024; // bytes of updates in one push

/**
 * Implements `countersign pre-receive`, the Git hook of that name. Reads `OLD NEW REF` lines and computes, for every
 * environment on a pushed branch, the verdict the gate would give. Exit code 0 accepts the push; any other refuses all
 * of it.
 */
export async function preReceive(
  input: AsyncIterable<Uint8Array>,
  options: PreReceiveOptions,
  settings: ProcessSettings,
  io: Io,
): Promise<number> {
  const updates = parseUpdates(await readAll(input));
  const configuration = openConfiguration(options);
  let code: number = EXIT.yes;
  for (const update of updates)
    for (const environment of configuration.environments.filter(
      (e) => `refs/heads/${e.spec.source.branch}` === update.ref,
    ))
      if (!(await lets(update, environment))) code = EXIT.no;
  return code;

  async function lets(update: Update, environment: Environment): Promise<boolean> {
    if (/^0+$/.test(update.to)) {
      io.out(
        `${paint(io, 'red', 'denied')}: the environment \`${environment.metadata.name}\` ` +
          `runs \`${update.ref}\`, which must not be deleted\n`,
      );
      return false;
    }
    const { repository } = await openCheckout(options.repo, settings, settings.gitQuarantine);
    const rendering = openRendering(settings);
    const { gate, close } = await openGate(configuration, environment, sourceRepository(repository), () => new Date(), {
      git: gitProgram(settings),
      ...rendering,
      untrusted: 'rendered',
    });
    try {
      const from = /^0+$/.test(update.from) ? (environment.spec.source.baseline ?? NO_REVISION) : update.from;
      const { verdict } = await assess(gate, from, update.to);
      const found = showFindings(verdict.violations, verdict.warnings, io);
      io.out(`${showVerdictHead(verdict, io)}${found === '' ? '' : `\n${found}\n`}${showVerdictEnd(verdict, io)}`);
      return verdict.outcome === 'allowed';
    } finally {
      await close();
      rendering.close();
      repository.close();
    }
  }
}

async function readAll(input: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of input) {
    size += chunk.length;
    if (size > MAX_LINES) throw new CountersignError('usage', 'the push has too many updates');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

// https://git-scm.com/docs/githooks#pre-receive
function parseUpdates(text: string): Update[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [from = '', to = '', ref = '', ...more] = line.split(' ');
      if (!isObjectId(from) || !isObjectId(to) || !ref.startsWith('refs/') || more.length > 0)
        throw new CountersignError('usage', `\`${plain(line.slice(0, 200))}\` is not an update of a ref`, {
          hint: 'this command is for Git’s `pre-receive` hook, which gives it `OLD NEW REF` lines',
        });
      return { from, to, ref };
    });
}
