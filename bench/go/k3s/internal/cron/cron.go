// Package cron reads schedules of five fields: minute, hour, day of month, month, day of week.
package cron

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Schedule is when something is due.
type Schedule struct {
	minute, hour, day, month, weekday field
	// every is the whole of "@every 5s"; zero for all others.
	every time.Duration
}

// field is the set of values that match; any is whether it was a plain star.
type field struct {
	set uint64
	any bool
}

func (f field) has(value int) bool { return f.set&(1<<value) != 0 }

// Parse understands stars, numbers, lists, ranges, steps and the short forms @hourly, @daily, @weekly, @monthly and
// @every.
func Parse(text string) (Schedule, error) {
	if span, ok := strings.CutPrefix(text, "@every "); ok {
		every, err := time.ParseDuration(span)
		if err != nil || every < time.Second {
			return Schedule{}, fmt.Errorf("failed to parse duration %s", text)
		}
		return Schedule{every: every.Truncate(time.Second)}, nil
	}
	short := map[string]string{
		"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *",
		"@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *",
	}
	if full, ok := short[text]; ok {
		text = full
	}
	parts := strings.Fields(text)
	if len(parts) != 5 {
		return Schedule{}, fmt.Errorf("expected exactly 5 fields, found %d: [%s]", len(parts), text)
	}
	var found Schedule
	for i, target := range []struct {
		field    *field
		low, top int
	}{{&found.minute, 0, 59}, {&found.hour, 0, 23}, {&found.day, 1, 31}, {&found.month, 1, 12}, {&found.weekday, 0, 7}} {
		parsed, err := parseField(parts[i], target.low, target.top)
		if err != nil {
			return Schedule{}, err
		}
		*target.field = parsed
	}
	if found.weekday.has(7) {
		found.weekday.set |= 1
	}
	return found, nil
}

func parseField(text string, low, top int) (field, error) {
	found := field{any: text == "*"}
	for part := range strings.SplitSeq(text, ",") {
		body, step, stepped := strings.Cut(part, "/")
		from, until, every := low, top, 1
		var err error
		if body != "*" {
			first, last, ranged := strings.Cut(body, "-")
			if from, err = strconv.Atoi(first); err == nil && ranged {
				until, err = strconv.Atoi(last)
			} else if !stepped {
				until = from
			}
		}
		if err == nil && stepped {
			every, err = strconv.Atoi(step)
		}
		if err != nil || every < 1 || from < low || until > top || from > until {
			return found, fmt.Errorf("failed to parse %q", part)
		}
		for value := from; value <= until; value += every {
			found.set |= 1 << value
		}
	}
	return found, nil
}

// Next is the first due minute (second, for @every) after now; zero when there is none within four years.
func (s Schedule) Next(now time.Time) time.Time {
	if s.every > 0 {
		return now.Truncate(time.Second).Add(s.every)
	}
	at := now.Truncate(time.Minute).Add(time.Minute)
	for end := now.AddDate(4, 0, 0); at.Before(end); {
		switch {
		case !s.month.has(int(at.Month())) || !s.onDay(at):
			at = time.Date(at.Year(), at.Month(), at.Day()+1, 0, 0, 0, 0, at.Location())
		case !s.hour.has(at.Hour()):
			at = time.Date(at.Year(), at.Month(), at.Day(), at.Hour()+1, 0, 0, 0, at.Location())
		case !s.minute.has(at.Minute()):
			at = at.Add(time.Minute)
		default:
			return at
		}
	}
	return time.Time{}
}

// onDay follows cron: of two restricted day fields one has to match, of one that one.
func (s Schedule) onDay(at time.Time) bool {
	day, weekday := s.day.has(at.Day()), s.weekday.has(int(at.Weekday()))
	if s.day.any || s.weekday.any {
		return day && weekday
	}
	return day || weekday
}
