import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { CountersignError, messageOf } from '../model/index.ts';

const requirement = z.strictObject({
  id: z.string().min(1).max(40),
  title: z.string().min(1).max(300),
  gap: z.string().min(1).max(500).exactOptional(),
});

const frameworkSchema = z.strictObject({
  id: z.string().regex(/^[a-z0-9-]{1,40}$/),
  name: z.string().min(1).max(200),
  requirements: z.record(z.string().regex(/^CS-\d\d$/), z.array(requirement)),
});

type Framework = z.infer<typeof frameworkSchema>;

const DIRECTORY = fileURLToPath(new URL('../../reports/frameworks/', import.meta.url));

/** Names of the shipped frameworks. */
export const SHIPPED_FRAMEWORKS: readonly string[] = readdirSync(DIRECTORY).map((file) => file.replace(/\.json$/, ''));

/**
 * Returns a shipped framework by name, or a custom one from a file. Throws `usage` if there is none, and
 * `config-invalid`.
 */
export function frameworkNamed(name: string): Framework {
  const file = SHIPPED_FRAMEWORKS.includes(name) ? join(DIRECTORY, `${name}.json`) : name;
  const hint = `use one of ${SHIPPED_FRAMEWORKS.join(', ')}, or a file like those in \`reports/frameworks\``;
  if (!existsSync(file)) throw new CountersignError('usage', `there is no framework \`${name}\``, { hint });
  return readFramework(readFileSync(file, 'utf8'), file);
}

// Reads a framework's requirements and our controls for them, in the format of `reports/frameworks`.
function readFramework(text: string, file: string): Framework {
  try {
    return frameworkSchema.parse(JSON.parse(text));
  } catch (cause) {
    const why =
      cause instanceof z.ZodError
        ? `${cause.issues[0]?.path.join('.')}: ${cause.issues[0]?.message}`
        : messageOf(cause);
    throw new CountersignError('config-invalid', `the framework \`${file}\` cannot be read: ${why}`, {
      cause,
      hint: 'write it like those in `reports/frameworks`',
    });
  }
}
