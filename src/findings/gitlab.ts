import { type Finding, fingerprint, ruleOf } from './model.ts';

const GITLAB: Record<string, string> = { critical: 'blocker', high: 'critical', medium: 'major', low: 'minor' };

export function gitlab(f: Finding): object {
  const severity =
    f.level === 'error' ? (GITLAB[f.severity ?? ''] ?? 'major') : f.level === 'warning' ? 'minor' : 'info';
  return {
    description: f.message,
    check_name: ruleOf(f),
    fingerprint: fingerprint(f),
    severity,
    location: { path: f.source?.file ?? '.', lines: { begin: f.source?.line ?? 1 } },
  };
}
