package cron

import (
	"testing"
	"time"
)

func TestNext(t *testing.T) {
	now := time.Date(2026, 11, 24, 10, 30, 20, 0, time.UTC) // a Tuesday
	for text, wanted := range map[string]time.Time{
		"0 */6 * * *":     time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC),
		"*/5 * * * *":     time.Date(2026, 11, 24, 10, 35, 0, 0, time.UTC),
		"30 10 * * *":     time.Date(2026, 11, 25, 10, 30, 0, 0, time.UTC),
		"15,45 8-9 * * *": time.Date(2026, 11, 25, 8, 15, 0, 0, time.UTC),
		"0 0 1 1 *":       time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
		"0 0 * * 7":       time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC),
		"0 0 13 * 5":      time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC),
		"@every 90s":      time.Date(2026, 11, 24, 10, 31, 50, 0, time.UTC),
		"@daily":          time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC),
	} {
		schedule, err := Parse(text)
		if err != nil || !schedule.Next(now).Equal(wanted) {
			t.Errorf("%q is next due %v, %v", text, schedule.Next(now), err)
		}
	}
}

func TestNonsenseIsRefused(t *testing.T) {
	for _, text := range []string{
		"", "* * * *", "61 * * * *", "a * * * *", "*/0 * * * *", "5-1 * * * *", "@every", "@every 5", "@every 1ms",
	} {
		if _, err := Parse(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
	if never, err := Parse("0 0 31 2 *"); err != nil || !never.Next(time.Now()).IsZero() {
		t.Error("the 31st of February comes")
	}
}
