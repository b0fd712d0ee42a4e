/**
 * Takes findings; returns them in one of nine output formats, one file per format. Refuses nothing: text from manifests
 * and commits is escaped for its format.
 */

export { type Finding, type Findings, FORMS, type Form, fingerprint } from './model.ts';
export { printFindings } from './print-findings.ts';
export { showFindingsText } from './text.ts';
