/**
 * Takes ReportSchedules and what the ledger says of earlier reports, and a way to make one; has the reports made that
 * are due, puts them on the ledger, and brings them to where they are wanted. Refuses nothing by itself: what cannot be
 * made or delivered is on the ledger and is tried again.
 */
export { deliver, type Issue, type ReportSummary } from './deliver.ts';
export { duePeriods, type Period, periodFrom, periodWith } from './periods.ts';
export { type Made, ScheduledReports, type ScheduledReportsPorts } from './scheduled-reports.ts';
