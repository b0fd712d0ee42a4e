import type { ViolationCode } from '../model/index.ts';
import { type Environment, messageOf, type Violation } from '../model/index.ts';
import type { Waiver } from '../policy/index.ts';
import { type TrustStore, verifyWaiver } from '../trust/index.ts';
import type { OpenWaiver, SourceRepository } from './ports.ts';

const MAX_WAIVERS = 1000; // more are no longer exceptions but a different rule
const MAX_WAIVER = 64 * 1024;

/** Returns the waivers of a tree whose signatures count, including expired ones, and warnings about the others. */
export async function readWaivers(
  gate: {
    readonly environment: Environment;
    readonly repository: Pick<SourceRepository, 'files' | 'blob'>;
    readonly openWaiver: OpenWaiver;
  },
  tree: string,
  store: TrustStore,
  now: number,
): Promise<{ readonly waivers: readonly Waiver[]; readonly refused: readonly Violation[] }> {
  const { source, policies } = gate.environment.spec;
  const files = (await gate.repository.files(tree, policies.waivers)).filter(
    (f) => f.mode.startsWith('100') && /\.ya?ml$/.test(f.path),
  );
  const waivers: Waiver[] = [];
  const refused: Violation[] = [];
  const refuse = (path: string, code: ViolationCode, reason: string, line = 1) => {
    refused.push({
      code,
      message: `the waiver in \`${path}\` does not count: ${reason}`,
      hint: 'make it with `countersign policy waive`',
      source: { file: path, line },
    });
  };
  for (const { path } of files.slice(MAX_WAIVERS))
    refuse(path, 'waiver-unusable', `there are more than ${MAX_WAIVERS}`);
  for (const { path, blob } of files.slice(0, MAX_WAIVERS)) {
    const bytes = await gate.repository.blob(blob);
    if (bytes.length > MAX_WAIVER) {
      refuse(path, 'waiver-unusable', 'it is larger than any waiver');
      continue;
    }
    try {
      const { document, line } = gate.openWaiver(Buffer.from(bytes).toString('utf8'), path);
      const verified = await verifyWaiver(document, source.url, store, now);
      const { rule, environments, subjects, reason, ticket } = document.spec;
      if (verified.kind === 'refused') refuse(path, verified.code, verified.reason, line);
      else
        waivers.push({
          name: document.metadata.name,
          rule,
          environments,
          subjects,
          reason,
          ticket,
          approver: verified.approver,
          until: verified.until,
          place: `${path}:${line}`,
        });
    } catch (thrown) {
      refuse(
        path,
        'waiver-unusable',
        thrown instanceof Error
          ? thrown.message.split('\n').slice(1).join('; ').trim() || messageOf(thrown)
          : messageOf(thrown),
      );
    }
  }
  return { waivers, refused };
}
