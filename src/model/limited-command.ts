/** What the kernel holds a program to: bytes of its data, and of any file it writes. */
export type KernelLimits = { readonly memory: number; readonly fileSize?: number | undefined };

/**
 * The words before a program and its arguments that have it run under limits: a shell sets them and becomes the program
 * (setrlimit(2), RLIMIT_DATA and RLIMIT_FSIZE). Some systems know one of them only, and none is set where there is no
 * shell.
 */
export function limitedCommand({ memory, fileSize }: KernelLimits): readonly string[] {
  if (process.platform === 'win32') return [];
  const kib = (bytes: number) => Math.ceil(bytes / 1024);
  const limits = [`-d ${kib(memory)}`, ...(fileSize === undefined ? [] : [`-f ${kib(fileSize)}`]), '-c 0'];
  return ['/bin/sh', '-c', `${limits.map((limit) => `ulimit ${limit} 2>/dev/null`).join('; ')}; exec "$@"`, 'sh'];
}
