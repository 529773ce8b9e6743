// How fast something moves, of how much is done at which time.

/** Points of one series; at one each half second it is a minute. */
const POINTS_MAX = 120;
/** Series that are kept; the oldest go. */
const SERIES_MAX = 32;
/** Between points: what is nearer says more of chance than of speed. */
const STEP_MS = 400;

interface Point {
  atMs: number;
  done: number;
}

export interface Series {
  key: string;
  label: string;
  isRunning: boolean;
  points: Point[];
}

export interface Speed {
  atMs: number;
  bytesPerSecond: number;
}

export class Rates {
  /** The newest last. */
  readonly series: Series[] = [];

  /** Whatever has ended before it was first seen has no series. */
  add(key: string, label: string, done: number, isRunning: boolean, atMs: number): void {
    let series = this.series.find((series) => series.key === key);
    if (!series) {
      if (!isRunning) {
        return;
      }
      series = { key, label, isRunning, points: [] };
      this.series.push(series);
      this.series.splice(0, this.series.length - SERIES_MAX);
    }
    const last = series.points.at(-1);
    const isNew = !last || atMs - last.atMs >= STEP_MS;
    if (isNew && (isRunning || series.isRunning)) {
      // An attempt that begins anew counts anew.
      if (last && done < last.done) {
        series.points = [];
      }
      series.points.push({ atMs, done });
      series.points.splice(0, series.points.length - POINTS_MAX);
    }
    series.isRunning = isRunning;
  }

  of(key: string): Series | undefined {
    return this.series.find((series) => series.key === key);
  }
}

export function speeds(series: Series): Speed[] {
  return series.points.slice(1).map((point, at) => {
    const before = series.points[at] as Point;
    return { atMs: point.atMs, bytesPerSecond: ((point.done - before.done) * 1000) / (point.atMs - before.atMs) };
  });
}
