/**
 * Collects what loading the modules of a thread left in its heap, once, and the space around it. V8 would keep it until
 * the heap has grown several times. Does nothing unless the process was started to (`main.ts`: only a service is).
 */
export function collectLeftovers(): void {
  (globalThis as { gc?: () => void }).gc?.();
}
