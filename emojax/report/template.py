"""The jinja2 template of the report page; every name is escaped."""

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; color: #222;
  padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; font-size: .9rem }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child, .text { text-align: left }
td:not(.text) { white-space: nowrap }
caption { caption-side: top; text-align: left; font-weight: 600; padding-bottom: .3rem }
img { max-width: 100% } figure { margin: 1.5rem 0 } figcaption { color: #555; font-size: .9rem }
.wide { overflow-x: auto } dt { font-weight: 600 } .note { color: #555; font-size: .9rem }
.headline { font-size: 1.4rem; line-height: 1.35 } .leak { color: #b02a00; font-weight: 600 }
.files { columns: 3; font-size: .9rem } details { margin: 1rem 0 }
dd { margin-left: 1rem } dl pre { margin: .2rem 0 .8rem; font-size: .8rem }
pre span { display: inline-block; max-width: 100% }
.checks td { vertical-align: top } .checks td:first-child { font-weight: 600; min-width: 8rem }
@media (min-width: 40rem) { .checks td:first-child { white-space: nowrap } }
summary { font-weight: 600; font-size: .9rem; cursor: pointer }
pre { background: #f5f5f5; padding: .3rem; white-space: pre-wrap; word-break: break-word }
"""

TABLE = """
{%- macro table(t) -%}
<div class="wide"><table><caption>{{ t.title }}</caption>
<thead><tr>
{%- for name in t.header -%}
{%- set text = t.rows and t.rows[0][loop.index0] is not number_like -%}
<th scope="col"{% if text %} class="text"{% endif %}>{{ name }}</th>
{%- endfor %}</tr></thead>
<tbody>
{%- for row in t.rows %}
<tr{% if row | select("leak") | list %} class="leak"{% endif %}>
{%- for cell in row %}<td{% if cell is not number_like %} class="text"{% endif %}>{{ cell }}</td>
{%- endfor %}</tr>
{%- endfor %}
</tbody></table></div>
{%- if t.note %}<p class="note">{{ t.note }}</p>{% endif %}
{%- endmacro -%}
"""

HEAD = """
<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title><style>{{ style | safe }}</style></head>
<body>
<h1>{{ title }}</h1>
<p class="headline">{{ headline }}</p>
"""

PAGE = (
    TABLE
    + HEAD
    + """\
{% if data %}<p>{{ data }}</p>{% endif %}
{% if notes %}<ul>
{%- for note in notes %}<li>{{ note }}</li>{% endfor -%}
</ul>{% endif %}
{% if checks %}<h2>What a reviewer asks</h2>
<div class="wide"><table class="checks"><tbody>
{%- for check in checks %}
<tr{% if "LEAK" in check.found %} class="leak"{% endif %}><td class="text">
<a class="jump" href="#{{ check.place }}">{{ check.asked }}</a></td>
<td class="text">{{ check.found }}</td></tr>
{%- endfor %}
</tbody></table></div>{% endif %}
<h2 id="result">Result</h2>
{{ table(main) }}
{% if unconverged %}<p>{{ unconverged }}</p>{% endif %}
{% if terms %}<dl>
{%- for name, text in terms.items() %}<dt>{{ name }}</dt><dd>{{ text }}</dd>{% endfor -%}
</dl>{% endif %}
{% macro folded(t) -%}
{% if t.rows | length > many -%}
<details><summary>{{ t.title }}: {{ t.rows | length }} rows</summary>{{ table(t) }}</details>
{% else %}{{ table(t) }}
{% endif -%}
{% endmacro %}
{% macro figure(name) %}
<figure id="{{ name }}">
<img alt="{{ captions[name] }}" src="data:image/png;base64,{{ images[name] }}">
<figcaption>{{ captions[name] }}</figcaption></figure>
{% endmacro %}
{% set own = [permutation, probabilities, searchlight] %}
{% set placed = own | select | map(attribute="figure") | list %}
{% set placed = placed + (patterns.figures if patterns else []) %}
{% if permutation %}<h2 id="chance">Permutation test</h2>
<p>{{ permutation.said }}</p>
{% if permutation.figure in images %}{{ figure(permutation.figure) }}{% endif %}
{% endif %}
{% if floor %}<h2 id="floor">Noise floor</h2>
<p>{{ floor.said }}</p>
{{ table(floor.table) }}
{% endif %}
{% if design %}<h2 id="design">Design</h2>
<ul>
{%- for text in design.said %}<li>{{ text }}</li>{% endfor -%}
</ul>
{% for t in design.tables %}{{ table(t) }}{% endfor %}
{% endif %}
{% if alignments %}<h2 id="alignments">Ways of aligning subjects</h2>
<p>{{ alignments.said }}</p>
{{ table(alignments.table) }}
{% endif %}
{% if searchlight %}<h2 id="searchlight">Searchlights</h2>
<p>{{ searchlight.said }}</p>
{% if searchlight.figure in images %}{{ figure(searchlight.figure) }}{% endif %}
{% if searchlight.table.rows %}{{ table(searchlight.table) }}{% endif %}
{% endif %}
{% if patterns %}<h2 id="patterns">What the decoder reads</h2>
{% for text in patterns.said %}<p>{{ text }}</p>{% endfor %}
{% for name in patterns.figures if name in images %}{{ figure(name) }}{% endfor %}
{% for t in patterns.tables %}{{ folded(t) }}{% endfor %}
{% endif %}
{% if probabilities %}<h2 id="probabilities">Probabilities</h2>
<p>{{ probabilities.said }}</p>
{{ table(probabilities.table) }}
{% if probabilities.figure in images %}{{ figure(probabilities.figure) }}{% endif %}
{% endif %}
<h2 id="seen">Who saw what, and what was tuned on what</h2>
<p>{{ audit }}</p>
{% if tuned.rows %}{{ table(tuned) }}{% endif %}
{% for t in seen %}{{ folded(t) }}{% endfor %}
{% if limits %}<h2 id="limits">What this does not show</h2>
<ul>
{%- for text in limits %}<li>{{ text }}</li>{% endfor -%}
</ul>{% endif %}
<h2>Figures</h2>
{% for name in images if name not in placed %}
{{ figure(name) }}
{% endfor %}
<h2>Details</h2>
{% for t in details -%}
{{ folded(t) }}
{% endfor %}
{% if methods %}<h2 id="methods">Text for the paper</h2>
<p class="note">Generated from metrics.json; numbers in brackets refer to the list below.</p>
{% for part in methods.paragraphs %}<p><b>{{ part.title }}.</b> {{ part.text }}</p>
{% endfor %}
<h3>References</h3>
<ol>
{%- for work in methods.references %}<li>{{ work }}</li>{% endfor -%}
</ol>
{% if bibliography %}<p>BibTeX: <a href="{{ bibliography }}">{{ bibliography }}</a></p>{% endif %}
{% endif %}
{% if reruns %}<h2 id="reruns">Run it again</h2>
<p class="note">Each command repeats one part of this report in a new folder and leaves out the
rest. Seeds are those of this run: on the same machine, with the same versions, the numbers are the
same.</p>
<dl>
{%- for rerun in reruns %}<dt>{{ rerun.what }}</dt>
<dd><pre>{% for word in rerun.command.split(" ") %}<span>{{ word }}</span>
{{- "" if loop.last else " " }}{% endfor %}</pre></dd>
{% endfor -%}
</dl>{% endif %}
{% if links %}<h2>Files</h2>
<ul class="files">
{%- for name in links %}<li><a href="{{ name | urlencode }}">{{ name }}</a></li>{% endfor -%}
</ul>{% endif %}
<h2>How it was made</h2>
<pre>{{ command }}</pre>
<p>{{ device }}. {{ versions }}.</p><p>Time: {{ spent }}.</p>
<details><summary>configuration</summary><pre>{{ config }}</pre></details>
</body></html>
"""
)
