import { CORE_SCHEMA, dump, load } from 'js-yaml';
import { parseYaml, YamlError } from '../yaml/index.ts';
import { Undefined } from './builtin.ts';

/** Reads YAML for a rule, as the API server's reader would. Throws `Undefined`. */
export function readYaml(text: string): unknown {
  try {
    return parseYaml(text)[0]?.value ?? null;
  } catch (thrown) {
    if (thrown instanceof YamlError) throw new Undefined(thrown.message);
    throw thrown;
  }
}

export function isYaml(text: string): boolean {
  try {
    readYaml(text);
    return true;
  } catch (thrown) {
    if (thrown instanceof Undefined) return false;
    throw thrown;
  }
}

/** Writes YAML with sorted keys and lists flush with their key, as Go's writer does. */
export function writeYaml(value: unknown): string {
  return dump(value, { sortKeys: true, lineWidth: -1, noRefs: true, noArrayIndent: true, schema: CORE_SCHEMA, quotingType: '"' } as Parameters<typeof dump>[1]);
}
void load;
