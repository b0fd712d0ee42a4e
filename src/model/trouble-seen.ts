import type { ObjectRef } from './kubernetes.ts';

/**
 * An object that did not become healthy, as it was seen right before anything was undone. Texts are of controllers and
 * of the kubelet, shortened; output of containers is not among them, because it may hold secrets.
 */
export type TroubleSeen = {
  readonly ref: ObjectRef;
  readonly conditions: readonly {
    readonly type: string;
    readonly status: string;
    readonly reason: string;
    readonly message: string;
  }[];
  /** Containers of its pods that do not run or are not ready. */
  readonly containers: readonly {
    readonly pod: string;
    readonly container: string;
    readonly state: 'waiting' | 'terminated' | 'running' | 'unscheduled';
    readonly reason: string;
    readonly message: string;
    readonly restarts: number;
    readonly exitCode?: number;
  }[];
  /** Warnings about it and its pods, newest first. */
  readonly events: readonly {
    readonly about: string;
    readonly reason: string;
    readonly message: string;
    readonly count: number;
    readonly last: string;
  }[];
};

/** Says the most telling part in one sentence; undefined if nothing was seen. */
export function sayTrouble({ containers, events }: TroubleSeen): string | undefined {
  const [container] = containers.filter((c) => c.reason !== '');
  if (container !== undefined) {
    const { pod, container: name, reason, message, restarts } = container;
    const often = restarts > 0 ? `, restarted ${restarts} ${restarts === 1 ? 'time' : 'times'}` : '';
    return `container \`${name}\` of ${pod}: ${reason}${message === '' ? '' : `: ${message}`}${often}`;
  }
  const [event] = events;
  return event && `${event.about}: ${event.reason}${event.message === '' ? '' : `: ${event.message}`}`;
}
