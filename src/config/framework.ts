import { z } from 'zod';
import { CountersignError, messageOf } from '../model/index.ts';

const requirement = z.strictObject({
  id: z.string().min(1).max(40),
  title: z.string().min(1).max(300),
  gap: z.string().min(1).max(500).optional(),
});

const frameworkSchema = z.strictObject({
  id: z.string().regex(/^[a-z0-9-]{1,40}$/),
  name: z.string().min(1).max(200),
  requirements: z.record(z.string().regex(/^CS-\d\d$/), z.array(requirement)),
});

/** Reads a framework's requirements by our controls, as `reports/frameworks` has them. Throws `config-invalid`. */
export function readFramework(text: string, file: string): z.infer<typeof frameworkSchema> {
  try {
    return frameworkSchema.parse(JSON.parse(text));
  } catch (cause) {
    const why = cause instanceof z.ZodError ? `${cause.issues[0]?.path.join('.')}: ${cause.issues[0]?.message}` : messageOf(cause);
    throw new CountersignError('config-invalid', `the framework \`${file}\` cannot be read: ${why}`, {
      cause,
      hint: 'write it like those in `reports/frameworks`',
    });
  }
}
