/** Kernel limits on a program: bytes of its data, and of any file it writes. */
export type KernelLimits = { readonly memory: number; readonly fileSize?: number | undefined };

/**
 * Returns the words before a program and its arguments that run it under limits. A shell sets the limits and then
 * becomes the program (setrlimit(2), RLIMIT_DATA and RLIMIT_FSIZE). Some systems support only one of them; without a
 * shell there are none.
 */
export function limitedCommand({ memory, fileSize }: KernelLimits): readonly string[] {
  if (process.platform === 'win32') return [];
  const kib = (bytes: number) => Math.ceil(bytes / 1024);
  const limits = [`-d ${kib(memory)}`, ...(fileSize === undefined ? [] : [`-f ${kib(fileSize)}`]), '-c 0'];
  return ['/bin/sh', '-c', `${limits.map((limit) => `ulimit ${limit} 2>/dev/null`).join('; ')}; exec "$@"`, 'sh'];
}
