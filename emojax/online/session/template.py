"""The jinja2 template of a session's report; every text in it is escaped."""

STYLE = """
.warn { border-left: .3rem solid #D55E00; padding: .4rem .8rem; background: #fdf1ea }
.fact th { text-align: left; font-weight: 600; padding-right: 1.2rem; vertical-align: top;
  white-space: nowrap }
.fact td { text-align: left; white-space: normal; overflow-wrap: anywhere }
.items td { vertical-align: top; text-align: left; white-space: normal }
.done, .measured { color: #00704f } .not { color: #777 } .unknown { color: #a04300 }
.status { white-space: nowrap !important }
code { overflow-wrap: anywhere }
"""

BODY = """\
{% for text in warnings %}<p class="warn">{{ text }}</p>
{% endfor %}
<table class="fact"><tbody>
{%- for name, text in head.items() %}<tr><th scope="row">{{ name }}</th><td>{{ text }}</td></tr>
{% endfor -%}
</tbody></table>
{% macro figure(name) %}{% if name in images %}
<figure id="{{ name }}">
<img alt="{{ captions[name] }}" src="data:image/png;base64,{{ images[name] }}">
<figcaption>{{ captions[name] }}</figcaption></figure>
{% endif %}{% endmacro %}
<h2 id="time">Time</h2>
{% if latency.rows %}{{ table(latency) }}{% else %}<p>No record of a volume was sent.</p>{% endif %}
{{ figure("latencies") }}
{% if accuracy.rows %}<h2 id="accuracy">Accuracy</h2>
{{ table(accuracy) }}
{{ figure("by_position") }}{% endif %}
<h2 id="courses">Volume by volume</h2>
{{ figure("courses") }}
<h2 id="quality">Quality</h2>
<div class="wide"><table class="items"><caption>Items that studies are asked to report</caption>
<thead><tr><th scope="col" class="text">item</th><th scope="col" class="text">status</th>
<th scope="col" class="text">this session</th></tr></thead><tbody>
{%- for item in items %}
<tr><td class="text">{{ item.name }}</td>
<td class="text status {{ item.status.split(" ")[0] | replace("not", "unknown" if "known" in
item.status else "not") }}">{{ item.status }}</td>
<td class="text">{{ item.found }}</td></tr>
{%- endfor %}
</tbody></table></div>
<p class="note">{{ source }}</p>
<h2 id="marks">Marks</h2>
{% if reasons.rows %}{{ table(reasons) }}{% else %}<p>No volume was marked or lost.</p>{% endif %}
{% if marks.rows %}<details{% if marks.rows | length <= few %} open{% endif %}>
<summary>volume by volume</summary>{{ table(marks) }}</details>{% endif %}
<h2 id="notes">Other incidents</h2>
{% if notes.rows %}{{ table(notes) }}{% else %}<p>None.</p>{% endif %}
<h2 id="seen">Who saw what</h2>
{% for text in about %}<p>{{ text }}</p>{% endfor %}
{% for t in seen if t.rows %}{{ table(t) }}{% endfor %}
<h2 id="log">The journal</h2>
<table class="fact"><tbody>
{%- for name, text in log.items() %}<tr><th scope="row">{{ name }}</th><td>{{ text }}</td></tr>
{% endfor -%}
</tbody></table>
<h2 id="limits">What this does not show</h2>
<ul>
{%- for text in limits %}<li>{{ text }}</li>{% endfor -%}
</ul>
<details><summary>first line of the journal</summary><pre>{{ start }}</pre></details>
</body></html>
"""
