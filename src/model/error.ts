/** Every way in which Countersign can fail to reach a verdict. A "no" is never an error: it is a `Verdict`. */
export type ErrorCode =
  | 'usage'
  | 'config-invalid'
  | 'key-missing'
  | 'key-unusable'
  | 'git-unreachable'
  | 'git-ref-missing'
  | 'git-object-missing'
  | 'git-object-corrupt'
  | 'git-shallow'
  | 'git-rewound'
  | 'signing-failed'
  | 'signatures-not-examined'
  | 'push-refused'
  | 'forge-unreachable'
  | 'forge-refused'
  | 'render-failed'
  | 'decryption-failed'
  | 'policy-unusable'
  | 'policy-failed'
  | 'ledger-unusable'
  | 'ledger-held'
  | 'store-damaged'
  | 'entry-archived'
  | 'ledger-inconsistent'
  | 'checkpoint-untrusted'
  | 'disk-full'
  | 'clock-wrong'
  | 'certificate-refused'
  | 'cluster-unreachable'
  | 'cluster-forbidden'
  | 'cluster-refused'
  | 'cluster-conflict'
  | 'cluster-immutable'
  | 'cluster-altered'
  | 'change-irreversible'
  | 'not-healthy'
  | 'port-in-use'
  | 'tool-missing'
  | 'report-unverifiable';

/**
 * Next step for the caller: `retry` after temporary trouble, `wait` for a new commit or configuration, or `halt` and
 * sign nothing more because the ledger is inconsistent.
 */
export type Recover = 'retry' | 'wait' | 'halt';

/** "I could not tell": thrown, never returned. The message is one line; the hint says how to fix it. */
export class CountersignError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly recover: Recover;

  constructor(code: ErrorCode, message: string, options: { hint?: string; recover?: Recover; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'CountersignError';
    this.code = code;
    this.hint = options.hint;
    this.recover = options.recover ?? 'wait';
  }
}

/** Returns the one line to show of anything thrown; never a stack. */
export function messageOf(thrown: unknown): string {
  if (thrown instanceof AggregateError && thrown.message === '') return thrown.errors.map(messageOf).join('; ');
  const text = thrown instanceof Error ? thrown.message : String(thrown);
  return text.split('\n')[0] ?? text;
}
