import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { CountersignError, messageOf } from '../model/index.ts';

const BATCH = 1000;

/**
 * Yields the events of audit logs in the format of --audit-log-format=json, a thousand at a time. Throws `usage` with
 * the first invalid line.
 */
export async function* auditEvents(files: readonly string[]): AsyncGenerator<unknown[]> {
  let batch: unknown[] = [];
  for (const file of files) {
    let line = 0;
    try {
      for await (const text of createInterface({
        input: createReadStream(file),
        crlfDelay: Number.POSITIVE_INFINITY,
      })) {
        line++;
        if (text.trim() !== '') batch.push(JSON.parse(text));
        if (batch.length < BATCH) continue;
        yield batch;
        batch = [];
      }
    } catch (cause) {
      throw new CountersignError(
        'usage',
        `\`${file}\` cannot be read as an audit log${line === 0 ? '' : ` (line ${line})`}: ${messageOf(cause)}`,
        {
          cause,
          hint: 'it must have one event of audit.k8s.io/v1 per line, as written by --audit-log-format=json',
        },
      );
    }
  }
  if (batch.length > 0) yield batch;
}
