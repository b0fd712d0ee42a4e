import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CountersignError, type ImageEvidence, messageOf } from '../model/index.ts';
import { parseYaml } from '../yaml/index.ts';

/** Examples of one rule: objects it must find, and objects it must pass. */
export type Example = {
  /** The directory, `rule` or `rule@variant`. */
  readonly name: string;
  readonly rule: string;
  readonly parameters: Readonly<Record<string, unknown>>;
  /** Evidence about images, as in `input.images`. */
  readonly images: Readonly<Record<string, readonly ImageEvidence[]>>;
  readonly fail: readonly unknown[];
  readonly pass: readonly unknown[];
};

/**
 * Reads `examples/RULE/{fail,pass,parameters,images}.yaml` under a root; empty if the directory does not exist. Throws
 * `policy-unusable`.
 */
export function readExamples(root: string): Example[] {
  const directory = join(root, 'examples');
  if (!existsSync(directory)) return [];
  return readdirSync(directory, { withFileTypes: true })
    .filter((d) => d.isDirectory())
    .map((d) => d.name)
    .sort()
    .map((name) => {
      const read = (file: string): unknown[] => {
        const path = join(directory, name, file);
        if (!existsSync(path)) return [];
        try {
          return parseYaml(readFileSync(path, 'utf8')).map((document) => document.value);
        } catch (cause) {
          throw new CountersignError('policy-unusable', `the example \`${path}\` cannot be read: ${messageOf(cause)}`, {
            cause,
          });
        }
      };
      return {
        name,
        rule: name.split('@')[0] as string,
        parameters: (read('parameters.yaml')[0] ?? {}) as Record<string, unknown>,
        images: (read('images.yaml')[0] ?? {}) as Example['images'],
        fail: read('fail.yaml'),
        pass: read('pass.yaml'),
      };
    });
}
