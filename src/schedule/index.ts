/**
 * Takes ReportSchedules, the ledger's record of earlier reports, and a way to make one. Makes reports that are due,
 * records them on the ledger, and delivers them. Reports that cannot be made or delivered are recorded on the ledger
 * and retried.
 */
export { deliver, type Issue, type ReportSummary } from './deliver.ts';
export { duePeriods, periodFrom, periodWith } from './periods.ts';
export { ScheduledReports, type ScheduledReportsPorts } from './scheduled-reports.ts';
