package account

import (
	"strings"
	"time"
)

// moment is a time as a page shows it: <time datetime="{{.ISO}}">{{.Text}}</time>.
type moment struct{ ISO, Text string }

// at writes a time in a language, in the time zone of the server.
func at(lang string, t time.Time) moment {
	layout := "2 January 2006, 15:04 MST"
	if lang == "de" {
		layout = "02.01.2006, 15:04 MST"
	}
	return moment{ISO: t.UTC().Format(time.RFC3339), Text: t.Local().Format(layout)}
}

// day writes a date YYYY-MM-DD in a language; what is none stays as it is.
func day(lang, date string) string {
	d, err := time.Parse(time.DateOnly, date)
	switch {
	case err != nil:
		return date
	case lang == "de":
		return d.Format("02.01.2006")
	}
	return d.Format("2 January 2006")
}

func today() string { return time.Now().UTC().Format(time.DateOnly) }

// browsers and systems are told by a word of the User-Agent. Each pretends to be
// those below it, so the first that is found counts.
var (
	browsers = [][2]string{
		{"Edg", "Edge"}, {"OPR/", "Opera"}, {"SamsungBrowser/", "Samsung Internet"},
		{"Firefox/", "Firefox"}, {"FxiOS/", "Firefox"}, {"CriOS/", "Chrome"}, {"Chrome/", "Chrome"}, {"Safari/", "Safari"},
	}
	systems = [][2]string{
		{"iPhone", "iPhone"}, {"iPad", "iPad"}, {"Android", "Android"}, {"CrOS", "ChromeOS"},
		{"Windows", "Windows"}, {"Mac OS X", "macOS"}, {"Linux", "Linux"},
	}
)

// browserOf names the browser and the system of a User-Agent, "" where it does
// not know. It is a help to recognise one's own devices and proves nothing.
func browserOf(userAgent string) (browser, system string) {
	named := func(words [][2]string) string {
		for _, w := range words {
			if strings.Contains(userAgent, w[0]) {
				return w[1]
			}
		}
		return ""
	}
	return named(browsers), named(systems)
}
