import { CORE_SCHEMA, dump } from 'js-yaml';
import { parseYaml, YamlError } from '../yaml/index.ts';
import { Undefined } from './builtin.ts';

/** Reads YAML for a rule, like OPA's own reader. Throws `Undefined`. */
export function readYaml(text: string): unknown {
  try {
    return parseYaml(text, { words: false })[0]?.value ?? null;
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

/** Writes YAML with sorted keys and the quoting of Go's writer. */
export function writeYaml(value: unknown): string {
  return `${block(value, '')}\n`.replace(/^\n/, '');
}

function block(value: unknown, indent: string): string {
  if (Array.isArray(value)) {
    if (value.length === 0) return '[]';
    return value.map((item) => `\n${indent}- ${block(item, `${indent}  `).replace(/^\n\s*/, '')}`).join('');
  }
  if (typeof value === 'object' && value !== null) {
    const keys = Object.keys(value).sort();
    if (keys.length === 0) return '{}';
    return keys
      .map((key) => {
        const inner = (value as Record<string, unknown>)[key];
        const text = block(inner, `${indent}  `);
        return `\n${indent}${scalar(key, '')}:${text.startsWith('\n') ? text : ` ${text}`}`;
      })
      .join('');
  }
  return typeof value === 'string' ? scalar(value, indent) : String(value);
}

// Text that a reader would take for a word or a number gets double quotes; other text that needs quotes gets single
// ones.
function scalar(text: string, indent: string): string {
  if (
    text === '' ||
    /^(y|n|yes|no|on|off|true|false|null|~)$/i.test(text) ||
    /^[-+]?[.\d][\d_]*(\.\d*)?([eE][-+]?\d+)?$|^[-+]?0[xob]|^\d+(:\d+)+$|^\d{4}-\d\d-\d\d/.test(text)
  )
    return JSON.stringify(text);
  const written = dump(text, { schema: CORE_SCHEMA, lineWidth: -1 } as Parameters<typeof dump>[1]).replace(/\n$/, '');
  return written.includes('\n')
    ? written
        .split('\n')
        .join(`\n${indent}`)
        .replace(new RegExp(`\n${indent}  `, 'g'), `\n${indent}`)
    : written;
}
